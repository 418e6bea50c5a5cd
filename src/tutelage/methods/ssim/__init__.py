"""SSIM: structural similarity between feature maps, for detection and segmentation."""

from __future__ import annotations

from tutelage.methods.ssim.loss import ssim_loss
from tutelage.methods.ssim.ssim import SSIM

__all__ = ["SSIM", "ssim_loss"]

"""SSIM: structural similarity between feature maps, for detection and segmentation."""

from __future__ import annotations

from tutelage.methods.ssim.ssim import SSIM, ssim_loss

__all__ = ["SSIM", "ssim_loss"]

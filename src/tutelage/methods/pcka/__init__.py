"""PCKA: alignment between the patches of feature maps, for detection and segmentation."""

from __future__ import annotations

from tutelage.methods.pcka.pcka import PCKA, pcka_loss

__all__ = ["PCKA", "pcka_loss"]

"""SRD, semantic representation distillation (Yang et al., 2024)."""

from __future__ import annotations

from tutelage.methods.srd.srd import SRD, srd_feature_loss, srd_loss

__all__ = ["SRD", "srd_feature_loss", "srd_loss"]

"""OFA-KD: distillation between unlike architectures, through exit branches of the student."""

from __future__ import annotations

from tutelage.methods.ofa.ofa import OFA, ofa_loss

__all__ = ["OFA", "ofa_loss"]

"""One paper, one file: pure functions that need torch only, and a thin `Method` around them."""

from __future__ import annotations

from tutelage.methods.alone import Alone
from tutelage.methods.kd import KD, kd_hard_loss, kd_loss
from tutelage.methods.mimic import Mimic, mimic_loss
from tutelage.methods.rcka import RCKA, rcka_feature_loss, rcka_loss

__all__ = ["KD", "RCKA", "Alone", "Mimic", "kd_hard_loss", "kd_loss", "mimic_loss", "rcka_feature_loss", "rcka_loss"]

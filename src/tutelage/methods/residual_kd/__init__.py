"""Residual knowledge distillation (Gao et al., 2020)."""

from __future__ import annotations

from tutelage.methods.residual_kd.losses import (
    error_removed,
    feature_distance,
    residual_kd_loss,
    residuals,
)
from tutelage.methods.residual_kd.network import ResidualNetwork
from tutelage.methods.residual_kd.residual_kd import ResidualKD
from tutelage.methods.residual_kd.split import cost, split_student
from tutelage.methods.residual_kd.width import scale_width

__all__ = [
    "ResidualKD",
    "ResidualNetwork",
    "cost",
    "error_removed",
    "feature_distance",
    "residual_kd_loss",
    "residuals",
    "scale_width",
    "split_student",
]

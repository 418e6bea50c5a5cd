"""OKDHP: online distillation of the heat maps of a pose network's branches."""

from __future__ import annotations

from tutelage.methods.okdhp.aggregation import FeatureAggregation, ensemble_of
from tutelage.methods.okdhp.losses import okdhp_loss, okdhp_ramp
from tutelage.methods.okdhp.network import BranchedPose
from tutelage.methods.okdhp.okdhp import OKDHP

__all__ = [
    "OKDHP",
    "BranchedPose",
    "FeatureAggregation",
    "ensemble_of",
    "okdhp_loss",
    "okdhp_ramp",
]

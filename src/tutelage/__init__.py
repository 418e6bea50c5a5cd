"""Knowledge distillation in PyTorch, with kernel alignment (CKA) at its heart."""

from __future__ import annotations

from tutelage.core import (
    Absent,
    Cached,
    Distiller,
    Method,
    Metrics,
    Network,
    Output,
    Step,
    Taps,
    Task,
    Teacher,
    Together,
)
from tutelage.errors import NonFiniteError, UserError
from tutelage.methods import AFD, CKD, DIST, DKD, KD, OFA, PCKA, RCKA, RTK, SRD, SSIM, Alone, Mimic, ResidualKD
from tutelage.tasks import Classification

__version__ = "0.1.0"

__all__ = [
    "AFD",
    "CKD",
    "DIST",
    "DKD",
    "KD",
    "OFA",
    "PCKA",
    "RCKA",
    "RTK",
    "SRD",
    "SSIM",
    "Absent",
    "Alone",
    "Cached",
    "Classification",
    "Distiller",
    "Method",
    "Metrics",
    "Mimic",
    "Network",
    "NonFiniteError",
    "Output",
    "ResidualKD",
    "Step",
    "Taps",
    "Task",
    "Teacher",
    "Together",
    "UserError",
]

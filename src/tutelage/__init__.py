"""Knowledge distillation in PyTorch, with kernel alignment (CKA) at its heart."""

from __future__ import annotations

from tutelage import methods
from tutelage.cache import CachedTeacher
from tutelage.core import (
    Batch,
    CombinedMethod,
    Distiller,
    Evaluation,
    FeatureTaps,
    FrozenTeacher,
    GradientCap,
    Method,
    MethodInfo,
    Metrics,
    NoTeacher,
    Output,
    Step,
    Task,
    Teacher,
    Teachers,
)
from tutelage.errors import NonFiniteError, UserError
from tutelage.methods import *  # noqa: F403  # a new method is listed in one place only
from tutelage.tasks import Classification

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CachedTeacher",
    "Classification",
    "CombinedMethod",
    "Distiller",
    "Evaluation",
    "FeatureTaps",
    "FrozenTeacher",
    "GradientCap",
    "Method",
    "MethodInfo",
    "Metrics",
    "NoTeacher",
    "NonFiniteError",
    "Output",
    "Step",
    "Task",
    "Teacher",
    "Teachers",
    "UserError",
    *methods.__all__,
]

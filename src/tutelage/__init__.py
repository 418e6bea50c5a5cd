"""Knowledge distillation in PyTorch, with kernel alignment (CKA) at its heart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage import methods
from tutelage._lazy import lazy_names

if TYPE_CHECKING:
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
    from tutelage.deploy import load
    from tutelage.errors import NonFiniteError, UserError
    from tutelage.methods import *  # noqa: F403  # a new method is listed in one place only
    from tutelage.tasks import Classification
else:
    __getattr__, __dir__ = lazy_names(__name__)

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
    "load",
    *methods.__all__,
]

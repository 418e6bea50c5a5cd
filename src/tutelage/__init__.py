"""Knowledge distillation in PyTorch, with kernel alignment (CKA) at its heart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from tutelage.deploy import Predictor
    from tutelage.recipes import Recipe

__version__ = "0.1.0"


def load(run: str | Path, recipe: Recipe | None = None) -> Predictor:
    """Return the student of a finished run, ready to predict; see `tutelage.deploy.load`."""
    from tutelage import deploy  # it imports the engine, which most of the package does without

    return deploy.load(run, recipe)


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

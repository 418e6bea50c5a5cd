"""The abstractions: batches, outputs, teachers, methods, tasks, and the module that is trained."""

from __future__ import annotations

from tutelage.core.batch import IGNORE_INDEX, Batch
from tutelage.core.combined import CombinedMethod
from tutelage.core.distiller import Distiller
from tutelage.core.gradient_cap import GradientCap
from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Output, Step
from tutelage.core.overlay import Overlay
from tutelage.core.search_space import Around, Between, SearchRange
from tutelage.core.taps import FeatureTaps
from tutelage.core.task import Evaluation, Metrics, Task
from tutelage.core.teacher import FrozenTeacher, NoTeacher, Teacher, Teachers

__all__ = [
    "IGNORE_INDEX",
    "Around",
    "Batch",
    "Between",
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
    "Output",
    "Overlay",
    "SearchRange",
    "Step",
    "Task",
    "Teacher",
    "Teachers",
]

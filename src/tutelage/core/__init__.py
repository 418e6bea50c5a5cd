"""The seams: what a network gave (`Output`), what a method sees (`Step`), and the one module that is trained."""

from __future__ import annotations

from tutelage.core.distiller import Distiller
from tutelage.core.method import Method
from tutelage.core.output import Output, Step
from tutelage.core.sketch import Sketch
from tutelage.core.tap import Taps
from tutelage.core.task import Metrics, Task
from tutelage.core.teacher import Absent, Cached, Network, Teacher
from tutelage.core.together import Together

__all__ = [
    "Absent",
    "Cached",
    "Distiller",
    "Method",
    "Metrics",
    "Network",
    "Output",
    "Sketch",
    "Step",
    "Taps",
    "Task",
    "Teacher",
    "Together",
]

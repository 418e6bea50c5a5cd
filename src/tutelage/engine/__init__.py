"""The engine: runs recipes from the first check to the shipped student, over Accelerate."""

from __future__ import annotations

from tutelage.engine.dry_run import plan
from tutelage.engine.fit import fit
from tutelage.engine.setup import Setup
from tutelage.provenance import provenance
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig

__all__ = [
    "Recipe",
    "Setup",
    "StudentConfig",
    "TeacherConfig",
    "TrainConfig",
    "fit",
    "plan",
    "provenance",
]

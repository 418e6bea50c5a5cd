"""The engine: recipes run from the first check to the shipped student, over Hugging Face Accelerate."""

from __future__ import annotations

from tutelage.engine.compare import compare_layers, judge, suggest_pairs
from tutelage.engine.fit import fit
from tutelage.engine.layers import layers_of
from tutelage.engine.provenance import provenance
from tutelage.engine.recipe import Recipe, Student, TeacherNetwork, Training

__all__ = [
    "Recipe",
    "Student",
    "TeacherNetwork",
    "Training",
    "compare_layers",
    "fit",
    "judge",
    "layers_of",
    "provenance",
    "suggest_pairs",
]

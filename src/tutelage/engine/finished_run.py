"""The student of a finished run, with its weights: beside its data, or by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from tutelage.core import NoTeacher
from tutelage.engine.checks.student_facts import read_student_facts
from tutelage.engine.setup import Setup, ready_network
from tutelage.engine.weights import load_weights
from tutelage.recipes.config import Recipe, StudentConfig


def setup_finished_run(recipe: Recipe, folder: Path) -> tuple[Setup, nn.Module]:
    """Return the setup of a finished run, and its shipped student with its weights.

    Args:
        recipe: of the run; the weights that its student started from may be gone.
        folder: of the run.

    Raises:
        UserError: If data or weights are missing or do not fit.
    """
    setup = Setup.of(replace(recipe, student=_start_of(recipe, folder)))
    student = setup.deployed()
    load_weights(student, folder)
    return setup, student


def shipped_student(recipe: Recipe, folder: Path) -> nn.Module:
    """Return the shipped student of a finished run, without reading the data.

    Args:
        recipe: of the run, without teachers.
        folder: of the run.

    Raises:
        UserError: If weights are missing or do not fit.
    """
    start = _start_of(recipe, folder)
    network = ready_network(start, recipe.data, "student")
    student = recipe.method.deploy(recipe.method.build_student(network, NoTeacher()))
    load_weights(student, folder)
    return student


def _start_of(recipe: Recipe, folder: Path) -> StudentConfig:
    """Return the student of a run, with the statistics of its inputs and without its start."""
    start = replace(recipe.student, weights=None)
    facts = read_student_facts(folder)
    if facts is not None and start.mean is None and start.std is None:
        # Those of the run that its student started from, which may be gone.
        start = replace(start, mean=facts.mean, std=facts.std)
    return start

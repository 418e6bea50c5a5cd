"""Calibrate a student after training: one temperature, fitted on validation data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import nn

from tutelage.core import Batch
from tutelage.data.samples import Samples
from tutelage.engine.evaluate import EvalLoading, evaluate, evaluation
from tutelage.errors import UserError
from tutelage.recipes.config import Recipe


@runtime_checkable
class Calibrates(Protocol):
    """A task whose networks' confidences a temperature can correct."""

    def fit_temperature(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Return the temperature that fits a network's outputs to the labels of these batches."""
        ...

    def at_temperature(self, model: nn.Module, temperature: float) -> AbstractContextManager[None]:
        """Return a context in which the network's outputs are divided by a temperature."""
        ...


def check_calibrates(recipe: Recipe) -> None:
    """Raise if the recipe asks for a temperature that its task does not know.

    Raises:
        UserError: If so.
    """
    if recipe.train.calibrate != "none" and not isinstance(recipe.task, Calibrates):
        raise UserError(
            f"train.calibrate is for classification; {type(recipe.task).__name__} has no "
            "temperature, so leave it out"
        )


def calibrate(
    recipe: Recipe, model: nn.Module, parts: Mapping[str, Samples], loading: EvalLoading
) -> dict[str, Any] | None:
    """Return the temperature of a trained network and its metrics with it; None if not asked for.

    Args:
        recipe: of the run.
        model: the trained network; it stays as it is.
        parts: the data by name.
        loading: how evaluation batches are loaded.
    """
    if recipe.train.calibrate == "none":
        return None
    task = recipe.task
    assert isinstance(task, Calibrates)
    temperature = task.fit_temperature(model, loading.batches(parts["validation"]))
    with task.at_temperature(model, temperature):
        metrics = {
            part: evaluate(model, task, parts, evaluation(part, loading))
            for part in ("validation", "test")
        }
    return {"temperature": temperature, **metrics}

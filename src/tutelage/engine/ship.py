"""Write the student that a run ships."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from tutelage.io import temporary_folder, write_json, write_tensors
from tutelage.recipes.config import Recipe

OWN_FORMAT = "student"  # folder of a student that has a format of its own


@runtime_checkable
class ShipsItself(Protocol):
    """A network that can be written in a format that another library opens."""

    def ship(self, folder: Path) -> None:
        """Write the network into a new folder, or nothing if it has no such format."""
        ...


def ship(
    student: nn.Module, recipe: Recipe, folder: Path, calibration: dict[str, Any] | None
) -> None:
    """Write student.safetensors and student.json, and `student/` if it has a format of its own.

    Args:
        student: with its weights.
        recipe: of the run.
        folder: of the run.
        calibration: what `calibrate` returned.
    """
    facts = {"model": type(student).__name__, **recipe.data.input_info(student)}
    if calibration is not None:
        facts["temperature"] = calibration["temperature"]
    write_tensors(folder / "student.safetensors", student.state_dict())
    write_json(folder / "student.json", facts)
    if isinstance(student, ShipsItself):
        _write_own_format(student, folder / OWN_FORMAT)


def _write_own_format(student: ShipsItself, target: Path) -> None:
    """Write a folder that is whole or not there."""
    temporary = temporary_folder(target)
    try:
        new = temporary / target.name
        new.mkdir()
        student.ship(new)
        if not any(new.iterdir()):
            return
        if target.exists():  # of a run that was interrupted here
            shutil.rmtree(target)
        new.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""What a run folder's student.json says about its network: its classes, and its input statistics.

A network whose classes stand in another order teaches wrong labels, and one that is fed with other
statistics teaches noise; both look fine. So a teacher, and the network that a student starts from,
are read with the facts of their own run, not with those of the data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.core.task import HasClasses
from tutelage.data import Data
from tutelage.engine.checks.notes import warn
from tutelage.engine.hub import hub_file, is_hub
from tutelage.errors import UserError
from tutelage.io import read_json
from tutelage.recipes.config import StudentConfig, TeacherConfig

STUDENT = ("student.safetensors", "student.json")
FIX = "give the --out of a finished run"
KEPT_TEACHER = " (a teacher that its recipe trained is trained anew if you remove its folder)"
TOLERANCE = 1e-6  # student.json holds float32 statistics, rounded to seven places


@dataclass(frozen=True)
class StudentFacts:
    """What student.json says.

    Attributes:
        path: of the file.
        entries: all that it holds.
        classes: names by label; None if it does not say.
        mean: per channel; None if there is none.
        std: as mean.
        states_statistics: whether it says anything about statistics, also that there are none.
    """

    path: Path
    entries: dict[str, Any]
    classes: list[str] | None
    mean: list[float] | None
    std: list[float] | None
    states_statistics: bool


def read_student_facts(source: str | Path) -> StudentFacts | None:
    """Return what the student.json of a run says.

    Args:
        source: a run folder, its student.safetensors, or any other weights file, here or on the
            Hub.

    Returns:
        The facts; None for weights that are of no run folder.

    Raises:
        UserError: If the file is damaged.
    """
    weights, facts = STUDENT
    if is_hub(source):
        source = hub_file(str(source))
    folder = Path(os.path.expanduser(source))
    if folder.name == weights:
        folder = folder.parent
    path = folder / facts
    if not os.path.isfile(path):  # `Path.is_file` raises for a name that is too long
        return None
    entries = read_json(path, FIX)
    classes = entries.get("classes")
    if classes is not None and not _is_list_of(classes, str):
        raise UserError(f"the 'classes' in {path} are no list of names; {FIX}")
    for name in ("mean", "std"):
        values = entries.get(name)
        is_numbers = values is None or _is_list_of(values, (int, float))
        if not is_numbers or not all(math.isfinite(value) for value in values or []):
            raise UserError(f"the '{name}' in {path} is no list of finite numbers; {FIX}")
    mean = entries.get("mean")
    std = entries.get("std")
    if (mean is None) != (std is None) or len(mean or []) != len(std or []):
        raise UserError(f"mean and std in {path} do not belong together; {FIX}")
    return StudentFacts(path, entries, classes, mean, std, "mean" in entries)


def check_classes(
    config: StudentConfig | TeacherConfig, data: Data, section: str, facts: StudentFacts
) -> None:
    """Refuse a network that learned other classes than the data has, or the same in another order.

    New names at a start are a reason to warn only: the student learns the labels anew. So they are
    for a teacher without pre-flight, of which a method may read layers alone. Names that stand in
    other places are refused there too.

    Args:
        config: the section of the recipe.
        data: the data of the recipe.
        section: name of the section, for messages.
        facts: of the network.

    Raises:
        UserError: If they differ.
    """
    learned = facts.classes
    if learned is None or not isinstance(data, HasClasses):
        return
    classes = list(data.classes)
    if classes == learned:
        return
    problem = (
        f"{section}: {facts.path.parent} learned the classes {shortened(learned)}, but the data "
        f"has {shortened(classes)}{_first_difference(learned, classes)}"
    )
    places = {name: place for place, name in enumerate(learned)}
    moved = [name for place, name in enumerate(classes) if places.get(name, place) != place]
    is_teacher = isinstance(config, TeacherConfig)
    is_checked = isinstance(config, TeacherConfig) and config.preflight
    if is_checked or (moved and len(classes) == len(learned)):
        raise UserError(
            f"{problem}; give data with the same classes in the same order, or weights that "
            "learned those of the data"
            f"{KEPT_TEACHER if is_teacher else ''}"
        )
    warn(problem)


def normalized(
    config: StudentConfig | TeacherConfig,
    data: Data,
    section: str,
    facts: StudentFacts | None,
) -> nn.Module:
    """Return the section's network with its input normalization.

    The recipe's own statistics come first, then those of the run that the weights are from, then
    the data's.

    Args:
        config: the section of the recipe; it has a network.
        data: the data of the recipe.
        section: name of the section, for messages.
        facts: of the run that the weights are from, if they are from one.

    Raises:
        UserError: If the statistics do not fit the data.
    """
    assert config.model is not None
    if facts is None or not facts.states_statistics:
        return data.normalize(config.model, config.mean, config.std)
    if config.mean is None and config.std is None and facts.mean is None:
        return config.model  # it was trained on inputs as they are
    for name, stated, own in (
        ("mean", config.mean, facts.mean),
        ("std", config.std, facts.std),
    ):
        if stated is not None and not _close(stated, own):
            warn(
                f"{section}.{name} is {list(stated)}, but {facts.path.parent} was trained with "
                f"{own}; the recipe's is taken, leave it out for the run's own"
            )
    mean = facts.mean if config.mean is None else config.mean
    std = facts.std if config.std is None else config.std
    try:
        return data.normalize(config.model, mean, std)
    except UserError as error:
        raise UserError(f"{section}, with the mean and std of {facts.path}: {error}") from error


def shortened(names: Sequence[str]) -> str:
    """Return a list of names for a message."""
    if len(names) <= 10:
        return str(list(names))
    return f"{str(list(names[:10]))[:-1]}, … {len(names)} in all]"


def _first_difference(learned: Sequence[str], classes: Sequence[str]) -> str:
    """Return where long lists differ first; their beginnings may be the same."""
    if max(len(learned), len(classes)) <= 10:
        return ""
    for place, (old, new) in enumerate(zip(learned, classes, strict=False)):
        if old != new:
            return f" (class {place} was {old!r} and is {new!r})"
    return ""


def _is_list_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, kind) and not isinstance(entry, bool) for entry in value
    )


def _close(stated: Sequence[float], own: Sequence[float] | None) -> bool:
    if own is None or len(stated) != len(own):
        return False
    return all(math.isclose(a, b, abs_tol=TOLERANCE) for a, b in zip(stated, own, strict=True))

"""What advice rests on, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.recipes.read import ParsedRecipe


@dataclass(frozen=True)
class Facts:
    """What is known of a recipe before it is trained.

    Attributes:
        task: class of the task, such as `Classification`.
        method: class of the method; `+` between those of a combined one.
        labels: number of training samples with labels.
        classes: number of classes; None if the task has none.
        teacher: kind of network, `CNN` or `ViT`; None without one teacher.
        student: as teacher.
        ratio: how many times as many parameters the teacher has; None without one teacher.
        teacher_top1: of the teacher on validation data, in percent; None if it is not trained.
        cap: of the method's gradient; None without.
        pulls: how many times as hard as the labels each term pulls.
        settings: the arguments of the method, of each in a combined one, as `KD.temperature`.
        steps: of the run.
        pairs: student layer → teacher layer, of those that agree most before training.
    """

    task: str
    method: str
    labels: int
    classes: int | None
    teacher: str | None
    student: str
    ratio: float | None
    teacher_top1: float | None
    cap: float | None
    pulls: Mapping[str, float]
    settings: Mapping[str, Any]
    steps: int
    pairs: Mapping[str, str]


@dataclass(frozen=True)
class Sentence:
    """A piece of advice.

    Attributes:
        text: one sentence or two.
        studies: names of the files in benchmarks/results that it rests on; none where we have
            measured nothing.
    """

    text: str
    studies: tuple[str, ...] = ()


def settings_of(recipe: ParsedRecipe) -> dict[str, Any]:
    """Return the arguments of a recipe's method, defaults included, as `KD.temperature`."""
    from tutelage.tune.candidates import single_sections

    return {
        f"{method.__name__}.{name}": value
        for method, section, _ in single_sections(recipe.config.method)
        for name, value in (section.get("init_args") or {}).items()
    }

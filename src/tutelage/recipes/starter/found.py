"""What is known of a folder before recipes are written for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from tutelage.data import Data, ImageSet, Samples
from tutelage.data._files import image_size

TaskName = Literal[
    "classification",
    "multi-label classification",
    "detection",
    "segmentation",
    "retrieval",
    "recommendation",
]
MAX_MEASURED = 200  # images whose size is looked up
SHOWN = 8  # classes that are listed


@dataclass(frozen=True)
class Found:
    """A folder that recipes can be written for.

    Attributes:
        root: the folder or file, as an absolute path.
        layout: how it is laid out, in words.
        task: what it is data for.
        data: name of the class in `tutelage.data`.
        arguments: of that class; `root` comes first.
        remarks: comments that stand beside arguments in the recipe.
        classes: names of the classes as the task counts them, without a background that is only
            counted; empty for data without classes.
        counts: number of items by part.
        sides: medians of the shorter and of the longer side of the images in pixels; None for data
            without images.
        num_items: number of items of users, in recommendation; else 0.
        facts: what else is printed, a line each.
    """

    root: Path
    layout: str
    task: TaskName
    data: str
    arguments: Mapping[str, Any]
    remarks: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    sides: tuple[int, int] | None = None
    num_items: int = 0
    facts: Sequence[str] = ()

    def describe(self) -> str:
        """Return what was found, a line each."""
        counts = ", ".join(f"{part} {count}" for part, count in self.counts.items())
        lines = [f"found: {self.layout}, for {self.task}", f"items: {counts}"]
        if self.classes:
            lines.append(f"classes: {len(self.classes)}, {listed(self.classes)}")
        if self.sides is not None:
            lines.append(f"images: {self.sides[0]} × {self.sides[1]} pixels in the middle of all")
        return "\n".join([*lines, *self.facts])


def part_counts(data: Data) -> tuple[dict[str, int], Mapping[str, Samples]]:
    """Return the number of items of each part, and the parts; every file is checked on the way.

    Raises:
        UserError: If the data cannot be read.
    """
    parts = data.splits()
    return {name: len(part) for name, part in parts.items()}, parts


def median_sides(paths: Sequence[Path]) -> tuple[int, int]:
    """Return the medians of the shorter and the longer side of some images, in pixels."""
    step = max(1, len(paths) // MAX_MEASURED)
    sizes = [image_size(path) for path in paths[::step][:MAX_MEASURED]]
    return round(median(map(min, sizes))), round(median(map(max, sizes)))


def class_shares(part: ImageSet, classes: Sequence[str]) -> str:
    """Return how many training images the classes have, in words."""
    if part.labels.ndim == 2:
        counts = {name: int(part.labels[:, i].sum()) for i, name in enumerate(classes)}
    else:
        numbers = Counter(part.labels.tolist())
        counts = {name: numbers[i] for i, name in enumerate(classes)}
    most = max(counts, key=lambda name: counts[name])
    least = min(counts, key=lambda name: counts[name])
    if counts[most] == counts[least]:
        return f"training images by class: {counts[most]} each"
    text = f"training images by class: from {counts[least]} ({least}) to {counts[most]} ({most})"
    if counts[most] >= 10 * max(1, counts[least]):
        key = "pos_weight" if part.labels.ndim == 2 else "class_weights: balanced"
        text += f"; they differ much, see {key} in _setting.yaml"
    return text


def listed(names: Sequence[str]) -> str:
    """Return the first names.

    >>> listed(["a", "b"])
    'a, b'
    """
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")

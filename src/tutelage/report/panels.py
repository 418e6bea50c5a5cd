"""Panels of a page: copies of an image, each with boxes, a mask or a map over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.report.colours import background, ink, level
from tutelage.report.kept import Shot, Side
from tutelage.report.maps import Numbers
from tutelage.report.masks import Pixels, agreement, enlarged, named, overlay, places
from tutelage.report.matching import Boxes, Match, match
from tutelage.report.numbers import fixed, known

MANY, CROWDED = 12, 8  # with more true boxes none is named, with more found ones the false are not, but on pointing
LETTER = 0.036  # height of a name, of the picture's longer side
NUMBERED = 10  # a map with more columns has no numbers in its cells


@dataclass(frozen=True)
class Shape:
    """A rectangle over a picture.

    Attributes:
        kind: `true`, `hit`, `false`, `missed` or `cell`.
        place: x, y, width, height.
        told: lines on pointing.
        tag: written in it; empty for nothing.
        since, until: the score from which on, or below which, it is shown; None is always.
        fill, dark: colour of a cell, and whether the text on it is dark.
    """

    kind: str
    place: tuple[float, float, float, float]
    told: str
    tag: str = ""
    since: float | None = None
    until: float | None = None
    fill: str = "none"
    dark: bool = False

    def shown(self, least: float) -> bool:
        """Return whether it is shown when scores are at least so high."""
        return (self.since is None or self.since >= least) and (self.until is None or self.until < least)


@dataclass(frozen=True)
class Panel:
    """One copy of an image with something over it.

    Attributes:
        title: whose it is.
        told: what is to be read of it; None where that is a count of boxes.
        shapes: boxes or cells.
        veil: a picture of a mask as a data URI; empty for none.
        words: (text, x, y) of names of a mask's classes.
    """

    title: str
    told: str | None = None
    shapes: Sequence[Shape] = ()
    veil: str = ""
    words: Sequence[tuple[str, float, float]] = ()

    def counted(self, least: float | None) -> str:
        """Return the words beside the title when scores are at least so high."""
        if self.told is not None:
            return self.told
        kinds = [shape.kind for shape in self.shapes if shape.shown(least or 0.0)]
        hits, total = kinds.count("hit"), kinds.count("hit") + kinds.count("missed")
        return (f"{hits} of {total} found" if total else "nothing to find") + f", {kinds.count('false')} false"

    def crowded(self, least: float | None) -> bool:
        """Return whether so much is found that the scores of false boxes would hide it."""
        return sum(shape.since is not None and shape.shown(least or 0.0) for shape in self.shapes) > CROWDED


@dataclass(frozen=True)
class Photo:
    """An image and its panels; `key` is its id on the page."""

    key: str
    name: str
    source: str
    width: int
    height: int
    panels: Sequence[Panel] = ()

    @classmethod
    def of(cls, shot: Shot, panels: Sequence[Panel]) -> Photo:
        """Return an image with these panels."""
        return cls(f"photo{shot.index}", f"test image {shot.index}", shot.source, shot.width, shot.height, panels)

    @property
    def letter(self) -> float:
        """Height of a name in the picture's pixels."""
        return round(LETTER * max(self.width, self.height), 2)

    def tag_place(self, shape: Shape) -> tuple[float, float]:
        """Return where a box's name starts: above its left corner, or in it at the upper edge of the image."""
        x, y, _, _ = shape.place
        most = self.width - 0.62 * self.letter * len(shape.tag)
        below = y if y > 1.2 * self.letter else y + 1.3 * self.letter
        return round(max(min(x, most), 0.0), 2), round(below - 0.3 * self.letter, 2)


def truth_panel(side: Side, classes: Sequence[str]) -> Panel:
    """Return what is there."""
    if side.mask is not None:
        return _masked(side.title, side.mask, classes, None)
    boxes = side.boxes or Boxes([], [])
    names = [named(classes, label) for label in boxes.labels]
    tags = names if _told_apart(classes) and len(names) <= MANY else [""] * len(names)
    shapes = [Shape("true", _place(box), name, tag) for box, name, tag in zip(boxes.corners, names, tags, strict=True)]
    return Panel(side.title, f"{len(shapes)} {'box' if len(shapes) == 1 else 'boxes'}", _ordered(shapes))


def found_panel(side: Side, truth: Side, classes: Sequence[str]) -> tuple[Panel, tuple[Boxes, Match] | None]:
    """Return what a network found, and of boxes also how they match the true ones."""
    if side.mask is not None:
        return _masked(side.title, side.mask, classes, truth.mask), None
    boxes, true = side.boxes or Boxes([], []), truth.boxes or Boxes([], [])
    met = match(true, boxes)
    missed = [
        Shape("missed", _place(box), f"missed: {named(classes, label)}", until=score)
        for box, label, score in zip(true.corners, true.labels, met.found, strict=True)
    ]
    shapes = [
        _seen(box, (named(classes, label), score), overlap, classes)
        for box, label, score, overlap in zip(boxes.corners, boxes.labels, boxes.scores, met.overlap, strict=True)
    ]
    return Panel(side.title, None, _ordered([*missed, *shapes])), (boxes, met)


def _seen(box: Sequence[float], what: tuple[str, float], overlap: float | None, classes: Sequence[str]) -> Shape:
    name, score = what
    told = f"{name}, score {fixed(score, 2)}\n"
    told += "false: it overlaps no free true box by half" if overlap is None else f"overlap {fixed(overlap, 2)}"
    tag = f"{name} {fixed(score, 2)}" if _told_apart(classes) else fixed(score, 2)
    return Shape("false" if overlap is None else "hit", _place(box), told, tag, since=score)


def map_panel(title: str, values: Numbers, shot: Shot) -> Panel:
    """Return a map, patch by patch, over its image."""
    rows, columns = len(values), len(values[0])
    width, height = shot.width / columns, shot.height / rows
    shapes = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            at = level(value)
            fill = "none" if at is None else background(at)
            told = f"row {i + 1}, column {j + 1}\nagreement {fixed(value, 3)}"
            tag = fixed(value and round(value, 2) + 0.0, 2) if columns <= NUMBERED else ""  # no −0.00
            place = (round(j * width, 2), round(i * height, 2), round(width, 2), round(height, 2))
            shapes.append(Shape("cell", place, told, tag, fill=fill, dark=at is None or ink(fill) == "#000000"))
    found = [value for row in values for value in row if known(value) is not None]
    mean = sum(v for v in found if v is not None) / len(found) if found else None
    return Panel(title, f"mean {fixed(mean, 2)}", shapes)


def _masked(title: str, mask: Pixels, classes: Sequence[str], truth: Pixels | None) -> Panel:
    words = places(mask, classes)
    agreed = None if truth is None else agreement(truth, mask)
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, _, _, share in words) or "no class"
    if agreed is not None:
        told = f"IoU {100 * agreed[0]:.1f} %, pixels {100 * agreed[1]:.1f} %"
    veil = overlay(enlarged(mask), classes, None if truth is None else enlarged(truth))
    return Panel(title, told, (), veil, _apart([word[:3] for word in words], LETTER * max(mask.shape)))


def _apart(words: Sequence[tuple[str, float, float]], letter: float) -> list[tuple[str, float, float]]:
    """Return the words, the first ones first, that do not run into one before them."""
    kept: list[tuple[str, float, float]] = []
    for word, x, y in words:
        if all(abs(y - b) > 1.3 * letter or abs(x - a) > 0.33 * letter * len(word + other) for other, a, b in kept):
            kept.append((word, x, y))
    return kept


def _told_apart(classes: Sequence[str]) -> bool:
    """Return whether there is more than one class beside the background."""
    return len(classes) > 2


def _place(box: Sequence[float]) -> tuple[float, float, float, float]:
    return box[0], box[1], round(box[2] - box[0], 2), round(box[3] - box[1], 2)


def _ordered(shapes: Sequence[Shape]) -> list[Shape]:
    """Return the largest first: what is drawn later lies above, where the pointer reaches it."""
    return sorted(shapes, key=lambda shape: -shape.place[2] * shape.place[3])

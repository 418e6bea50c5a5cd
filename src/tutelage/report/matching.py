"""Which of the boxes that a network found are there, and from which score on a true one is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Corners = Sequence[float]

ENOUGH = 0.5  # overlap of a found box with a true one, over their union
STEPS = [step / 20 for step in range(2, 20)]  # thresholds that a page offers


@dataclass(frozen=True)
class Boxes:
    """Boxes of an image by their corners x1, y1, x2, y2, with labels; found ones have scores, the highest first."""

    corners: Sequence[Corners]
    labels: Sequence[int]
    scores: Sequence[float] = ()


@dataclass(frozen=True)
class Match:
    """How found boxes match true ones.

    Attributes:
        overlap: of each found box, in order, with the true one that it hits; None for one that hits none.
        found: of each true box, the score of what hits it; None for one that is missed.
    """

    overlap: list[float | None]
    found: list[float | None]


def match(truth: Boxes, seen: Boxes) -> Match:
    """Give every found box, the surest first, the free true box of its class that it overlaps most, at least by half.

    Boxes that are less sure never change what a surer one got, so the outcome holds for every threshold of the score.

    >>> match(Boxes([[0, 0, 4, 4]], [1]), Boxes([[0, 0, 4, 3], [0, 0, 4, 4]], [1, 1], [0.9, 0.8]))
    Match(overlap=[0.75, None], found=[0.9])
    """
    overlap: list[float | None] = []
    found: list[float | None] = [None] * len(truth.corners)
    for box, label, score in zip(seen.corners, seen.labels, seen.scores, strict=True):
        free = [i for i, name in enumerate(truth.labels) if name == label and found[i] is None]
        best = max(free, key=lambda i: iou(truth.corners[i], box), default=None)
        value = 0.0 if best is None else iou(truth.corners[best], box)
        overlap.append(value if value >= ENOUGH else None)
        if best is not None and value >= ENOUGH:
            found[best] = score
    return Match(overlap, found)


def iou(one: Corners, other: Corners) -> float:
    """Return the area that two boxes share over the area that they cover.

    >>> iou([0, 0, 2, 2], [1, 0, 3, 2]), iou([0, 0, 1, 1], [5, 5, 6, 6])
    (0.3333333333333333, 0.0)
    """
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(width, 0.0) * max(height, 0.0)
    covered = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / covered if covered > 0 else 0.0


def balanced(seen: Sequence[tuple[Boxes, Match]]) -> float:
    """Return the score at which found and false boxes balance best over all pictures: the highest F1, 2 found /
    (shown + true); the highest score of several.

    >>> boxes = Boxes([[0, 0, 1, 1], [1, 1, 2, 2]], [1, 1], [0.81, 0.3])
    >>> balanced([(boxes, Match([0.9, None], [0.81]))])
    0.8
    """

    def balance(least: float) -> float:
        shown = sum(score >= least for boxes, _ in seen for score in boxes.scores)
        hits = sum(score is not None and score >= least for _, found in seen for score in found.found)
        true = sum(len(found.found) for _, found in seen)
        return 2 * hits / max(shown + true, 1)

    return max(reversed(STEPS), key=balance)

"""Which predicted boxes are true, and which true boxes are found, at every score threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Corners = Sequence[float]

MIN_IOU = 0.5  # of a predicted box with the true one that it finds
THRESHOLDS = [step / 20 for step in range(2, 20)]  # that a page offers


@dataclass(frozen=True)
class Boxes:
    """Boxes of an image.

    Attributes:
        corners: x1, y1, x2, y2 of each box.
        labels: the class of each box.
        scores: of predicted boxes, the highest first; empty for true ones.
    """

    corners: Sequence[Corners]
    labels: Sequence[int]
    scores: Sequence[float] = ()


@dataclass(frozen=True)
class Match:
    """How predicted boxes match true ones.

    Attributes:
        ious: of each predicted box, with the true one that it finds; None for a false one.
        scores: of each true box, the score of the box that finds it; None for a missed one.
    """

    ious: list[float | None]
    scores: list[float | None]


def match(truth: Boxes, prediction: Boxes) -> Match:
    """Match predicted boxes with true ones, the highest score first.

    Each takes the free true box of its class with the highest IoU, if that is at least one half.
    A box never changes what one of a higher score got, so the match holds at every threshold.

    >>> truth = Boxes([[0, 0, 4, 4]], [1])
    >>> match(truth, Boxes([[0, 0, 4, 3], [0, 0, 4, 4]], [1, 1], [0.9, 0.8]))
    Match(ious=[0.75, None], scores=[0.9])
    """
    ious: list[float | None] = []
    scores: list[float | None] = [None] * len(truth.corners)
    for box, label, score in zip(
        prediction.corners, prediction.labels, prediction.scores, strict=True
    ):
        free = [i for i, name in enumerate(truth.labels) if name == label and scores[i] is None]
        overlaps = {i: iou(truth.corners[i], box) for i in free}
        best = max(overlaps, key=lambda i: overlaps[i], default=None)
        if best is not None and overlaps[best] >= MIN_IOU:
            ious.append(overlaps[best])
            scores[best] = score
        else:
            ious.append(None)
    return Match(ious, scores)


def iou(a: Corners, b: Corners) -> float:
    """Return the intersection of two boxes over their union.

    >>> iou([0, 0, 2, 2], [1, 0, 3, 2]), iou([0, 0, 1, 1], [5, 5, 6, 6])
    (0.3333333333333333, 0.0)
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0.0) * max(height, 0.0)
    union = _area(a) + _area(b) - intersection
    return intersection / union if union > 0 else 0.0


def best_threshold(matches: Sequence[tuple[Boxes, Match]]) -> float:
    """Return the score threshold with the highest F1 over all images, the highest one of several.

    F1 is 2 found / (shown + true).

    >>> boxes = Boxes([[0, 0, 1, 1], [1, 1, 2, 2]], [1, 1], [0.81, 0.3])
    >>> best_threshold([(boxes, Match([0.9, None], [0.81]))])
    0.8

    Args:
        matches: the predicted boxes of each image, and how they match.
    """
    all_scores = [score for boxes, _ in matches for score in boxes.scores]
    matched_scores = [score for _, result in matches for score in result.scores]

    def f1(threshold: float) -> float:
        shown = sum(score >= threshold for score in all_scores)
        hits = sum(score is not None and score >= threshold for score in matched_scores)
        return 2 * hits / max(shown + len(matched_scores), 1)

    return max(reversed(THRESHOLDS), key=f1)


def _area(box: Corners) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])

"""Classification of known classes, judged also by what a network thinks of images of other classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tutelage.core import Metrics, Task
from tutelage.core.batch import batch_labels
from tutelage.errors import UserError, near_misses
from tutelage.tasks.classification import Classification
from tutelage.tasks.open_set_metrics import SCORES, OpenSetMetrics


class OpenSetClassification(Task):
    """`Classification`, with outliers in the evaluation data: how well student and teacher tell them apart.

    Outliers have the labels -101, -102, …, as `tutelage.data.OpenSet` gives them in evaluation data; they leave the
    accuracy, and the loss refuses them.

    >>> OpenSetClassification(num_classes=6)
    OpenSetClassification(num_classes=6, label_smoothing=0.0, score='softmax', kinds=('near', 'far'))

    Args:
        num_classes: number of known classes.
        label_smoothing: see `Classification`.
        score: "softmax" (the most likely class's probability) or "energy".
        kinds: names of the outliers with the labels -101, -102, ….
    """

    select = "top1"

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        score: str = "softmax",
        kinds: Sequence[str] = ("near", "far"),
    ) -> None:
        if score not in SCORES:
            raise UserError(f"there is no score {score!r} of outliers{near_misses(score, SCORES)}")
        self.num_classes, self.label_smoothing, self.score, self.kinds = num_classes, label_smoothing, score, kinds
        self._known = Classification(num_classes, label_smoothing)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the images, or the dict without its labels."""
        return self._known.inputs(batch)

    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the mean cross-entropy over the items that have a label; 0 when none has one."""
        return self._known.loss(out, batch)

    def metrics(self) -> Metrics:
        """Return fresh running metrics."""
        known = self._known
        return OpenSetMetrics(known.metrics(), known.logits, batch_labels, self.kinds, SCORES[self.score])

    def class_count(self) -> int:
        """Return the number of known classes."""
        return self.num_classes

    def chance(self) -> float:
        """Return the accuracy of a guess."""
        return self._known.chance()

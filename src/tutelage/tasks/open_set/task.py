"""Classification of known classes, evaluated also on images of other classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from tutelage.core import Batch, Metrics, Task
from tutelage.core.prediction import ClassMap, Prediction
from tutelage.errors import UserError, near_misses
from tutelage.tasks.classification import Classification
from tutelage.tasks.open_set.metrics import SCORES, OpenSetMetrics, Score


class OpenSetClassification(Task):
    """`Classification` whose evaluation data also holds outliers.

    The metrics say how well student and teacher tell outliers from images of known classes.
    Outliers have the labels -101, -102, ..., as `tutelage.data.OpenSet` gives them in evaluation
    data; they leave the accuracy, and the loss refuses them.

    >>> OpenSetClassification(num_classes=6, kinds=["near"])
    OpenSetClassification(num_classes=6, label_smoothing=0.0, score='softmax', kinds=['near'])

    Args:
        num_classes: number of known classes.
        label_smoothing: see `Classification`.
        score: of outliers: "softmax" (by the probability of the most likely class) or "energy".
        kinds: names of the outliers with the labels -101, -102, ....

    Raises:
        UserError: If an argument is out of range.
    """

    monitor = "top1"

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        score: Score = "softmax",
        kinds: Sequence[str] = ("near", "far"),
    ) -> None:
        if score not in SCORES:
            raise UserError(f"there is no score {score!r} of outliers{near_misses(score, SCORES)}")
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.score: Score = score
        self.kinds = kinds
        self._known = Classification(num_classes, label_smoothing)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the inputs of the batch as the only argument."""
        return self._known.inputs(batch)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over the items that have a label; 0 if none has one."""
        return self._known.loss(output, batch)

    def decisions(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the most likely class of every item, and its label, below 0 for an outlier."""
        return self._known.decisions(output, batch)

    def outputs(self, output: Any, inputs: Any) -> dict[str, Tensor]:
        """Return the logits of the known classes as what an exported network gives."""
        return self._known.outputs(output, inputs)

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> list[Prediction]:
        """Return the most likely known classes, and how much of an outlier each is."""
        known = self._known.predictions(output, batch, classes, top)
        scores = SCORES[self.score](self._known.logits(output)).tolist()
        return [
            Prediction({**prediction.record, "outlier_score": round(score, 6)})
            for prediction, score in zip(known, scores, strict=True)
        ]

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless the data has as many known classes, and the loss can be computed."""
        self._known.validate(output, batch, data)

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return OpenSetMetrics(
            known=self._known.metrics(),
            logits=self._known.logits,
            kinds=self.kinds,
            score=SCORES[self.score],
        )

    def fit_temperature(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Return the temperature that fits a network's logits to the labels of known classes."""
        return self._known.fit_temperature(model, batches)

    def at_temperature(self, model: nn.Module, temperature: float) -> AbstractContextManager[None]:
        """Return a context in which the network's logits are divided by a temperature."""
        return self._known.at_temperature(model, temperature)

    def chance_level(self) -> float:
        """Return the accuracy of a guess."""
        return self._known.chance_level()

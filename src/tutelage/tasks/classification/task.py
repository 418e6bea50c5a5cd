"""Image classification, and any other classification with one label an item."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tutelage.core import IGNORE_INDEX, Batch, Metrics, Task
from tutelage.core.distributed import gather_lists, mean_over_ranks
from tutelage.core.modes import eval_mode
from tutelage.core.prediction import ClassMap, Prediction
from tutelage.core.taps import call
from tutelage.core.task import check_num_classes
from tutelage.errors import UserError
from tutelage.tasks.classification._logits import class_logits
from tutelage.tasks.classification.calibration import at_temperature, fit_temperature
from tutelage.tasks.classification.class_weights import balanced_weights, checked_weights
from tutelage.tasks.classification.metrics import ClassificationMetrics

TOP = 5  # classes that a prediction names, if nobody says how many


class Classification(Task):
    """Cross-entropy on one label an item.

    The labels of a batch are (N,) int64. The network returns logits (N, num_classes), or a mapping
    with `logits` (Hugging Face). Items with the label -100 have no label: they leave the loss and
    the metrics.

    >>> import torch
    >>> from tutelage.core import Batch
    >>> task = Classification(num_classes=3)
    >>> batch = Batch.of((torch.zeros(2, 1, 8, 8), torch.tensor([0, 2])))
    >>> round(task.loss(torch.zeros(2, 3), batch).item(), 4)
    1.0986

    Args:
        num_classes: at least 2.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).
        class_weights: how much items of each class count in the loss, a mean with these weights;
            `balanced` takes 1 / (number of its training items), so that all classes count alike.
            Methods and metrics know no weights.

    Raises:
        UserError: If an argument is out of range.
    """

    monitor = "top1"

    def __init__(
        self,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
    ) -> None:
        if not isinstance(num_classes, int) or num_classes < 2:
            raise UserError(f"num_classes must be at least 2, got {num_classes!r}")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is a share in [0, 1), got {label_smoothing}")
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self._weights: Tensor | None = None
        if class_weights is not None and class_weights != "balanced":
            self._weights = checked_weights(class_weights, num_classes)

    def prepare(self, train: Any) -> None:
        """Count the items of every class for balanced weights.

        Raises:
            UserError: If the labels are not known before the samples are read, or a class has none.
        """
        if self.class_weights == "balanced":
            self._weights = balanced_weights(train, self.num_classes)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the inputs of the batch as the only argument."""
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over the items that have a label; 0 if none has one.

        Under several ranks, with gradient, it is the mean over the labeled items of all ranks.

        Raises:
            UserError: If the logits are not (N, num_classes) with one label an item of int64, or a
                label is out of range.
        """
        logits = self.logits(output)
        labels = batch.labels
        if labels.shape != logits.shape[:1]:
            raise UserError(
                f"{tuple(labels.shape)} labels for {tuple(logits.shape)} logits; "
                "give one label an item"
            )
        if not len(labels):
            raise UserError("the batch is empty; give at least one item")
        weights = self._weights_on(logits.device)
        try:
            total = cross_entropy(
                logits.float(),
                labels,
                weight=weights,
                ignore_index=IGNORE_INDEX,
                label_smoothing=self.label_smoothing,
                reduction="sum",
            )
        except (IndexError, RuntimeError):
            if labels.dtype not in (torch.int64, torch.uint8):
                raise UserError(
                    f"the labels are {labels.dtype}, but classes are int64; use labels.long()"
                ) from None
            # The CPU says at once that a label is out of range, an accelerator only later.
            self._check_range(labels)
            raise
        labeled = labels != IGNORE_INDEX
        if weights is None:
            return mean_over_ranks(total, labeled.sum())
        # Each is 1 or more, so that their sum is that of a count: below 1 only without any label.
        return mean_over_ranks(total, weights[labels.clamp(min=0).long()][labeled].sum())

    def logits(self, output: Any) -> Tensor:
        """Return the logits (N, num_classes) in a network's output.

        Raises:
            UserError: If there are none of that shape.
        """
        return class_logits(output, self.num_classes)

    def decisions(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the most likely class of every item, and its label; both (N,)."""
        return self.logits(output).argmax(1), batch.labels

    def outputs(self, output: Any, inputs: Any) -> dict[str, Tensor]:
        """Return the logits (N, num_classes) as what an exported network gives."""
        return {"logits": self.logits(output)}

    def output_info(self) -> dict[str, Any]:
        """Return that an item has one class."""
        text = "one class an image, softmax over the classes"
        return {"multi_label": False, "activation": "softmax", "text": text}

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> list[Prediction]:
        """Return the most likely classes of every item, each with its probability."""
        probabilities = self.logits(output).float().softmax(1)
        best = probabilities.topk(min(top or TOP, self.num_classes))
        predictions = []
        for row, labels in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            entries = [
                {**classes.entry(label), "probability": round(value, 6)}
                for label, value in zip(labels, row, strict=True)
            ]
            predictions.append(Prediction({"classes": entries}))
        return predictions

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless the data has as many classes as the task, and the loss can be computed."""
        check_num_classes(self.num_classes, data)
        self.loss(output, batch)

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return ClassificationMetrics(self.num_classes, self.logits)

    def fit_temperature(self, model: nn.Module, batches: Iterable[Batch]) -> float:
        """Return the temperature that fits a network's logits to the labels of these batches.

        Under several ranks it is that of all their batches.
        """
        logits = []
        labels = []
        with torch.no_grad(), eval_mode(model):
            for batch in batches:
                logits.append(self.logits(call(model, self.inputs(batch))).float().cpu())
                labels.append(batch.labels.cpu())
        logits, labels = gather_lists([logits, labels])
        if not logits:
            raise UserError("a temperature needs validation data with labels, got none")
        return fit_temperature(torch.cat(logits), torch.cat(labels))

    def at_temperature(self, model: nn.Module, temperature: float) -> AbstractContextManager[None]:
        """Return a context in which the network's logits are divided by a temperature."""
        return at_temperature(model, temperature)

    def chance_level(self) -> float:
        """Return the accuracy of a guess."""
        return 1 / self.num_classes

    def _weights_on(self, device: torch.device) -> Tensor | None:
        if self.class_weights == "balanced" and self._weights is None:
            raise UserError(
                "task.class_weights is balanced, but the number of items of each class is not "
                "known yet; call task.prepare(samples) with the training samples, or give a list"
            )
        if self._weights is not None and self._weights.device != device:
            self._weights = self._weights.to(device)
        return self._weights

    def _check_range(self, labels: Tensor) -> None:
        lowest, highest = labels.aminmax()
        negative = (labels < 0) & (labels != IGNORE_INDEX)
        if highest >= self.num_classes or bool(negative.any()):
            raise UserError(
                f"labels run from {int(lowest)} to {int(highest)}, but the task has "
                f"{self.num_classes} classes (0 to {self.num_classes - 1}); "
                "check task.num_classes and the data's classes"
            )

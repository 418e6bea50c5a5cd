"""Image classification, and any other classification with one label an item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

from tutelage.core import Metrics, Task
from tutelage.core.batch import IGNORED, batch_inputs, batch_labels
from tutelage.errors import UserError
from tutelage.tasks.classification_metrics import ClassificationMetrics


class Classification(Task):
    """Cross-entropy on one label an item.

    A batch is a tuple `(images, labels, …)`, or a dict with `labels` whose other entries the network takes by name
    (Hugging Face). The network returns logits (N, num_classes), or a mapping with `logits`. Items with the label
    −100 have no label: they leave the loss and the metrics.

    >>> import torch
    >>> task = Classification(num_classes=3)
    >>> batch = (torch.zeros(2, 1, 8, 8), torch.tensor([0, 2]))
    >>> round(task.loss(torch.zeros(2, 3), batch).item(), 4)
    1.0986

    Args:
        num_classes: at least 2.
        label_smoothing: share of the target spread evenly over the classes, in [0, 1).
    """

    select = "top1"

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        if num_classes < 2:
            raise UserError(f"num_classes must be at least 2, got {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing is a share in [0, 1), got {label_smoothing}")
        self.num_classes, self.label_smoothing = num_classes, label_smoothing

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the images, or the dict without its labels."""
        return batch_inputs(batch)

    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the mean cross-entropy over the items that have a label; 0 when none has one.

        Raises:
            UserError: the logits are not (N, num_classes) with one label an item.
        """
        scores, labels = self.logits(out), batch_labels(batch)
        if labels.shape != scores.shape[:1]:
            raise UserError(f"{tuple(labels.shape)} labels for {tuple(scores.shape)} logits; give one label an item")
        if not len(labels):
            raise UserError("the batch is empty; give at least one item")
        labelled = scores.device.type == "cpu" and bool((labels >= 0).all())  # elsewhere the look would make it wait
        how = "mean" if labelled else "sum"
        try:
            total = cross_entropy(
                scores.float(), labels, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction=how
            )
        except (IndexError, RuntimeError):  # on the CPU; an accelerator says it in words of its own, and later
            self._check_range(labels)
            raise
        return total if labelled else total / (labels != IGNORED).sum().clamp(min=1)

    def logits(self, out: Any) -> Tensor:
        """Return the logits (N, num_classes) of what a network gave."""
        scores = out["logits"] if isinstance(out, Mapping) else out
        if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] != self.num_classes:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UserError(
                f"the network gives {got}, but the task has {self.num_classes} classes and needs logits "
                f"(N, {self.num_classes}); check the network's num_classes and task.num_classes"
            )
        return scores

    def class_count(self) -> int:
        """Return the number of classes."""
        return self.num_classes

    def metrics(self) -> Metrics:
        """Return fresh running metrics."""
        return ClassificationMetrics(self.num_classes, self.logits, batch_labels)

    def chance(self) -> float:
        """Return the accuracy of a guess."""
        return 1 / self.num_classes

    def _check_range(self, labels: Tensor) -> None:
        low, high = labels.aminmax()
        if high >= self.num_classes or (low < 0 and bool(((labels < 0) & (labels != IGNORED)).any())):
            raise UserError(
                f"labels run from {int(low)} to {int(high)}, but the task has {self.num_classes} classes "
                f"(0 to {self.num_classes - 1}); check task.num_classes and the data's classes"
            )

"""Intersection over union, accuracy and closeness to a teacher; sums, so that batches and ranks add up exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Metrics
from tutelage.core.batch import batch_labels
from tutelage.errors import UserError


class SegmentationMetrics(Metrics):
    """Running metrics of a segmentation network, over the pixels that have a class.

    miou is the mean over the classes that occur, in the masks or in what was found, of intersection over union, all
    pixels of all images counted together, as VOC and Cityscapes do; accuracy the share of pixels that are right; with
    names, iou/<name> by class, NaN for one that does not occur; with a teacher, agreement (share of equal decisions).
    count is the number of pixels; unlabelled, where there are such, the number of images without a class anywhere.

    Args:
        num_classes: of the task.
        logits: reads (N, num_classes, H, W) logits, at the size of the masks, from what a network gave for a batch.
        names: of all classes, or none.
    """

    def __init__(self, num_classes: int, logits: Callable[[Any, Any], Tensor], names: Sequence[str] = ()) -> None:
        from torchmetrics import SumMetric  # slow to import
        from torchmetrics.classification import MulticlassConfusionMatrix

        self._logits, self._names = logits, names
        self._confusion, self._agreement = (MulticlassConfusionMatrix(num_classes, validate_args=False) for _ in "12")
        self._unlabelled = SumMetric()

    def update(self, out: Any, batch: Any, teacher: Any = None) -> None:
        """Take in one batch."""
        found, masks = self._logits(out, batch).argmax(1), batch_labels(batch)
        self._to(found.device)
        known = masks >= 0
        self._confusion.update(found[known], masks[known])
        self._unlabelled.update((~known.flatten(1).any(1)).sum())
        if teacher is not None:
            self._agreement.update(found[known], self._logits(teacher, batch).argmax(1)[known])

    def compute(self) -> dict[str, float]:
        """Return the figures by name.

        Raises:
            UserError: no pixel with a class was seen, on any rank.
        """
        nothing = torch.zeros(0, dtype=torch.int64, device=self._confusion.device)
        for metric in (self._confusion, self._agreement):
            metric.update(nothing, nothing)  # a rank without items, or without a teacher, has a share of 0
        self._unlabelled.update(0.0)
        table, told = (metric.compute().double().cpu() for metric in (self._confusion, self._agreement))
        unlabelled, count = float(self._unlabelled.compute()), float(table.sum())
        if count == 0:
            raise UserError("there is nothing to evaluate: no pixel has a class; check data.root and the split")
        right = table.diagonal()
        iou = right / (table.sum(0) + table.sum(1) - right)  # 0 / 0 is NaN: the class does not occur
        figures = {"miou": float(iou.nanmean()), "accuracy": float(right.sum()) / count}
        figures |= {f"iou/{name}": float(iou[label]) for label, name in enumerate(self._names)}
        if told.any():
            figures["agreement"] = float(told.trace() / told.sum())
        if unlabelled:
            figures["unlabelled"] = unlabelled
        return figures | {"count": count}

    def _to(self, device: torch.device) -> None:
        if self._confusion.device != device:
            for metric in (self._confusion, self._agreement, self._unlabelled):
                metric.to(device)

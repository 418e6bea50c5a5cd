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
    count is the number of pixels.

    Args:
        num_classes: of the task.
        logits: reads (N, num_classes, H, W) logits, at the size of the masks, from what a network gave for a batch.
        names: of all classes, or none.
    """

    def __init__(self, num_classes: int, logits: Callable[[Any, Any], Tensor], names: Sequence[str] = ()) -> None:
        from torchmetrics import MeanMetric  # slow to import
        from torchmetrics.classification import MulticlassConfusionMatrix

        self._logits, self._names = logits, names
        self._confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self._agreement, self._taught = MeanMetric(), False

    def update(self, out: Any, batch: Any, teacher: Any = None) -> None:
        """Take in one batch."""
        found, masks = self._logits(out, batch).argmax(1), batch_labels(batch)
        if self._confusion.device != found.device:
            self._confusion.to(found.device)
            self._agreement.to(found.device)
        known = masks >= 0
        decided = found[known]
        if not len(decided):
            return
        self._confusion.update(decided, masks[known])
        if teacher is not None:
            told = self._logits(teacher, batch).argmax(1)[known]
            self._taught = True
            self._agreement.update((decided == told).float())

    def compute(self) -> dict[str, float]:
        """Return the figures by name.

        Raises:
            UserError: no pixel with a class was seen, on any rank.
        """
        if not self._confusion.update_called:  # a rank without items has a share of 0
            nothing = torch.zeros(0, dtype=torch.int64, device=self._confusion.device)
            self._confusion.update(nothing, nothing)
        table = self._confusion.compute().double()
        count = float(table.sum())
        if count == 0:
            raise UserError("there is nothing to evaluate: no pixel has a class; check data.root and the split")
        right = table.diagonal()
        iou = right / (table.sum(0) + table.sum(1) - right)  # 0 / 0 is NaN: the class does not occur
        figures = {"miou": float(iou.nanmean()), "accuracy": float(right.sum()) / count}
        figures |= {f"iou/{name}": float(iou[label]) for label, name in enumerate(self._names)}
        if self._taught:
            figures["agreement"] = float(self._agreement.compute())
        return figures | {"count": count}

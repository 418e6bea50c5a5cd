"""Intersection over union, accuracy and closeness to a teacher.

From sums that batches and ranks add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from tutelage.core import Batch, Metrics
from tutelage.errors import UserError
from tutelage.tasks._checks import num_undefined, refuse_labels, refuse_undefined, warn_once
from tutelage.tasks._sums import RunningSums


class SegmentationMetrics(Metrics):
    """Running metrics of a segmentation network, over the pixels that have a class.

    - `miou`: mean intersection over union of the classes that occur, in the masks or in the
      predictions; pixels of all images are counted together, as VOC and Cityscapes do
    - `accuracy`: the share of pixels that are right
    - with names `iou/<name>` by class, NaN for one that does not occur; a line on standard error
      names such classes
    - with a teacher `agreement`, the share of equal decisions
    - `unlabeled`: the number of images without a class anywhere, if there are any
    - `num_samples`: the number of pixels

    Args:
        num_classes: of the task.
        logits: reads logits (N, num_classes, H, W), at the size of the masks, from a network's
            output for a batch.
        names: of all classes, or none.
    """

    def __init__(
        self,
        num_classes: int,
        logits: Callable[[Any, Batch], Tensor],
        names: Sequence[str] = (),
    ) -> None:
        self._num_classes = num_classes
        self._logits = logits
        self._names = names
        square = (num_classes, num_classes)
        self._sums = RunningSums(
            {
                "confusion": square,
                "agreement": square,
                "unlabeled": (),
                "undefined": (),
                "teacher_undefined": (),
            }
        )

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch."""
        masks = batch.labels
        refuse_labels(masks, self._num_classes)
        logits = self._logits(output, batch)
        prediction = logits.argmax(1)
        labeled = masks >= 0
        values = {
            "confusion": self._count_pairs(masks, prediction, labeled),
            "unlabeled": (~labeled.flatten(1).any(1)).sum(),
            "undefined": num_undefined(logits),
        }
        if teacher is not None:
            teacher_logits = self._logits(teacher, batch)
            teacher_prediction = teacher_logits.argmax(1)
            values["agreement"] = self._count_pairs(teacher_prediction, prediction, labeled)
            values["teacher_undefined"] = num_undefined(teacher_logits)
        self._sums.add(values)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no pixel with a class was seen, on any rank, or if logits are NaN.
        """
        totals = self._sums.totals()
        # Counts of pairs (class, predicted class) and (teacher's class, student's class).
        confusion = totals["confusion"]
        agreement = totals["agreement"]
        num_unlabeled = float(totals["unlabeled"])
        num_pixels = float(confusion.sum())
        if num_pixels == 0:
            raise UserError(
                "there is nothing to evaluate: no pixel has a class; check data.root and the split"
            )
        for role, name in (("network", "undefined"), ("teacher", "teacher_undefined")):
            refuse_undefined(role, int(totals[name]), f"{num_pixels:.0f} pixels")
        right = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - right
        iou = right / union  # 0 / 0 is NaN: the class does not occur
        metrics = {"miou": float(iou.nanmean()), "accuracy": float(right.sum()) / num_pixels}
        for label, name in enumerate(self._names):
            metrics[f"iou/{name}"] = float(iou[label])
        self._tell_absent([label for label, pixels in enumerate(union) if pixels == 0])
        if agreement.any():
            metrics["agreement"] = float(agreement.trace() / agreement.sum())
        if num_unlabeled:
            metrics["unlabeled"] = num_unlabeled
        metrics["num_samples"] = num_pixels
        return metrics

    def _tell_absent(self, labels: Sequence[int]) -> None:
        if labels:
            names = [self._names[label] if self._names else label for label in labels]
            warn_once(
                f"no mask and no prediction holds the classes {names}: their IoU is NaN, and miou "
                f"is over the other {self._num_classes - len(labels)}"
            )

    def _count_pairs(self, rows: Tensor, columns: Tensor, mask: Tensor) -> Tensor:
        """Return how often each pair of classes occurs where a mask is set, (C, C) int64."""
        num_classes = self._num_classes
        pairs = rows[mask].long() * num_classes + columns[mask]
        return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)

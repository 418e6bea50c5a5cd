"""Intersection over union, accuracy and closeness to a teacher.

From sums that batches and ranks add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Batch, Metrics
from tutelage.errors import UserError
from tutelage.tasks._checks import num_undefined, refuse_labels, refuse_undefined, warn_once


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
        # torchmetrics takes seconds to import, and only evaluation needs it.
        from torchmetrics import SumMetric
        from torchmetrics.classification import MulticlassConfusionMatrix

        self._logits = logits
        self._names = names
        self._confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self._agreement = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self._unlabeled = SumMetric()
        self._undefined = {"network": SumMetric(), "teacher": SumMetric()}

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch."""
        masks = batch.labels
        refuse_labels(masks, len(self._confusion.confmat))
        logits = self._logits(output, batch)
        prediction = logits.argmax(1)
        self._to(prediction.device)
        self._undefined["network"].update(num_undefined(logits))
        labeled = masks >= 0
        self._confusion.update(prediction[labeled], masks[labeled])
        self._unlabeled.update((~labeled.flatten(1).any(1)).sum())
        if teacher is not None:
            teacher_logits = self._logits(teacher, batch)
            self._undefined["teacher"].update(num_undefined(teacher_logits))
            self._agreement.update(prediction[labeled], teacher_logits.argmax(1)[labeled])

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no pixel with a class was seen, on any rank, or if logits are NaN.
        """
        # A rank without items, or without a teacher, adds 0; all ranks must take part in every sum.
        nothing = torch.zeros(0, dtype=torch.int64, device=self._confusion.device)
        self._confusion.update(nothing, nothing)
        self._agreement.update(nothing, nothing)
        for metric in (self._unlabeled, *self._undefined.values()):
            metric.update(0.0)
        # Counts of pairs (class, predicted class) and (teacher's class, student's class).
        confusion = self._confusion.compute().double().cpu()
        agreement = self._agreement.compute().double().cpu()
        num_unlabeled = float(self._unlabeled.compute())
        num_pixels = float(confusion.sum())
        if num_pixels == 0:
            raise UserError(
                "there is nothing to evaluate: no pixel has a class; check data.root and the split"
            )
        for role, metric in self._undefined.items():
            refuse_undefined(role, int(metric.compute()), f"{num_pixels:.0f} pixels")
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
                f"is over the other {len(self._confusion.confmat) - len(labels)}"
            )

    def _to(self, device: torch.device) -> None:
        if self._confusion.device != device:
            self._confusion.to(device)
            self._agreement.to(device)
            for metric in (self._unlabeled, *self._undefined.values()):
                metric.to(device)

"""Semantic segmentation with torchvision's networks, or any that gives logits for places in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tutelage.core import Metrics, Sketch, Task
from tutelage.core.batch import IGNORED, batch_inputs, batch_labels
from tutelage.errors import UserError
from tutelage.tasks.segmentation_metrics import SegmentationMetrics
from tutelage.tasks.sketch import mask_sketch

ENTRIES = ("out", "logits")


class Segmentation(Task):
    """Cross-entropy on one class a pixel.

    A batch is `(images, masks, ids)`: (N, 3, H, W) and (N, H, W) int64, −100 for a pixel without a class; or a dict
    with `labels` whose other entries the network takes by name (Hugging Face). The network returns logits
    (N, num_classes, h, w), or a mapping with them as `out` (torchvision's, which may have `aux` too) or `logits`.
    Logits of another size than the masks are resized bilinearly.

    >>> import torch
    >>> task = Segmentation(num_classes=3)
    >>> batch = (torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.int64))
    >>> round(task.loss({"out": torch.zeros(1, 3, 2, 2), "aux": torch.zeros(1, 3, 2, 2)}, batch).item(), 4)
    1.6479

    Args:
        num_classes: with the background, where there is one.
        aux_weight: of the auxiliary head's loss, for networks that have such a head.
        names: of the classes, for the figures by class; without names there are none.
    """

    select = "miou"
    margin = 0.05
    evaluation_batch = 8

    def __init__(self, num_classes: int, aux_weight: float = 0.5, names: Sequence[str] = ()) -> None:
        if num_classes < 2:
            raise UserError(f"num_classes must be at least 2, got {num_classes}")
        if names and len(set(names)) != num_classes:
            raise UserError(f"names are one for each of the {num_classes} classes, all different, got {list(names)}")
        self.num_classes, self.aux_weight, self.names = num_classes, aux_weight, tuple(names)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the images, or the dict without its labels."""
        return batch_inputs(batch)

    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the mean cross-entropy over the pixels that have a class; 0 when none has one.

        Raises:
            UserError: logits and masks do not fit the task or each other.
        """
        masks = batch_labels(batch)
        total = self._entropy(self.logits(out), masks)
        if isinstance(out, Mapping) and "aux" in out and self.aux_weight:
            total = total + self.aux_weight * self._entropy(self._checked(out["aux"]), masks)
        return total

    def logits(self, out: Any) -> Tensor:
        """Return the logits (N, num_classes, h, w) of what a network gave."""
        if isinstance(out, Mapping):
            return self._checked(next((out[name] for name in ENTRIES if name in out), None))
        return self._checked(out)

    def resized(self, out: Any, batch: Any) -> Tensor:
        """Return the logits at the size of the batch's masks."""
        return _resized(self.logits(out), batch_labels(batch))

    def accept(self, out: Any, batch: Any) -> None:
        """Refuse logits that do not fit, and masks with classes that the task does not have."""
        self._check_range(batch_labels(batch))
        self.loss(out, batch)

    def sketch(self, batch: Any, out: Any = None) -> list[Sketch]:
        """Return the class of every pixel."""
        return mask_sketch(batch_labels(batch) if out is None else self.resized(out, batch).argmax(1))

    def class_count(self) -> int:
        """Return the number of classes."""
        return self.num_classes

    def metrics(self) -> Metrics:
        """Return fresh running metrics."""
        return SegmentationMetrics(self.num_classes, self.resized, self.names)

    def chance(self) -> float:
        """Return the most that one class everywhere can be worth."""
        return 1 / self.num_classes

    def _checked(self, scores: Any) -> Tensor:
        if not isinstance(scores, Tensor) or scores.ndim != 4 or scores.shape[1] != self.num_classes:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise UserError(
                f"the network gives {got}, but the task has {self.num_classes} classes and needs logits "
                f"(N, {self.num_classes}, h, w), by themselves or as 'out' or 'logits' of a mapping; check the "
                "network's num_classes and task.num_classes"
            )
        return scores

    def _entropy(self, scores: Tensor, masks: Tensor) -> Tensor:
        try:
            total = F.cross_entropy(_resized(scores, masks).float(), masks, ignore_index=IGNORED, reduction="sum")
        except (IndexError, RuntimeError):  # on the CPU; an accelerator says it in words of its own, and later
            self._check_range(masks)
            raise
        return total / (masks != IGNORED).sum().clamp(min=1)

    def _check_range(self, masks: Tensor) -> None:
        known = masks[masks != IGNORED]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < self.num_classes:
            raise UserError(
                f"classes in the masks run from {int(known.min())} to {int(known.max())}, but the task has "
                f"{self.num_classes} (0 to {self.num_classes - 1}); check task.num_classes and the data's classes"
            )


def _resized(scores: Tensor, masks: Tensor) -> Tensor:
    if masks.ndim != 3 or len(masks) != len(scores):
        raise UserError(f"{tuple(masks.shape)} masks for {tuple(scores.shape)} logits; give one mask (H, W) an image")
    if scores.shape[2:] == masks.shape[1:]:
        return scores
    size = [int(side) for side in masks.shape[1:]]
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)

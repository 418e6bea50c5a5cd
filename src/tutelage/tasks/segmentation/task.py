"""Semantic segmentation with torchvision's networks, or any that gives maps of logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from tutelage.core import IGNORE_INDEX, Batch, Metrics, Overlay, Task
from tutelage.core.distributed import mean_over_ranks
from tutelage.core.prediction import ClassMap, Prediction
from tutelage.core.task import check_num_classes
from tutelage.errors import UserError
from tutelage.tasks._overlays import mask_overlays
from tutelage.tasks.segmentation.metrics import SegmentationMetrics

LOGITS = ("out", "logits")  # names in an output: torchvision's, Hugging Face's


class Segmentation(Task):
    """Cross-entropy on one class a pixel.

    The inputs of a batch are images (N, 3, H, W), its labels masks (N, H, W) int64, -100 for a
    pixel without a class. The network returns logits (N, num_classes, h, w), or a mapping with them
    as `out` (torchvision's networks, which may give `aux` too) or `logits` (Hugging Face). Logits
    of another size than the masks are resized bilinearly.

    >>> import torch
    >>> from tutelage.core import Batch
    >>> task = Segmentation(num_classes=3)
    >>> batch = Batch.of((torch.zeros(1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.int64)))
    >>> output = {"out": torch.zeros(1, 3, 2, 2), "aux": torch.zeros(1, 3, 2, 2)}
    >>> round(task.loss(output, batch).item(), 4)
    1.6479

    Args:
        num_classes: with the background, if there is one.
        aux_weight: of the auxiliary head's loss, for networks that have such a head.
        names: of the classes, for the metrics by class; without names there are none.

    Raises:
        UserError: If an argument is out of range.
    """

    monitor = "miou"
    min_gain_over_chance = 0.05

    def __init__(
        self, num_classes: int, aux_weight: float = 0.5, names: Sequence[str] = ()
    ) -> None:
        if not isinstance(num_classes, int) or num_classes < 2:
            raise UserError(f"num_classes must be at least 2, got {num_classes!r}")
        if names and len(set(names)) != num_classes:
            raise UserError(
                f"names are one for each of the {num_classes} classes, all different, "
                f"got {list(names)}"
            )
        self.num_classes = num_classes
        self.aux_weight = aux_weight
        self.names = tuple(names)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the inputs of the batch as the only argument."""
        return (batch.inputs,)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over the pixels that have a class; 0 if none has one.

        Under several ranks, with gradient, it is the mean over the pixels of all ranks.

        Raises:
            UserError: If logits and masks do not fit the task or each other.
        """
        masks = batch.labels
        loss = self._cross_entropy(self.logits(output), masks)
        if isinstance(output, Mapping) and "aux" in output and self.aux_weight:
            aux = self._checked(output["aux"])
            loss = loss + self.aux_weight * self._cross_entropy(aux, masks)
        return loss

    def logits(self, output: Any) -> Tensor:
        """Return the logits (N, num_classes, h, w) in a network's output.

        Raises:
            UserError: If there are none of that shape.
        """
        if isinstance(output, Mapping):
            return self._checked(next((output[name] for name in LOGITS if name in output), None))
        return self._checked(output)

    def resized(self, output: Any, batch: Batch) -> Tensor:
        """Return the logits in a network's output, at the size of the batch's masks."""
        return _resized(self.logits(output), batch.labels)

    def outputs(self, output: Any, inputs: Any) -> dict[str, Tensor]:
        """Return logits (N, num_classes, H, W) at the images' size: what an export gives."""
        return {"logits": _at_size(self.logits(output), inputs.shape[-2:])}

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> list[Prediction]:
        """Return which share of each image has which class, the largest first, and the mask."""
        masks = _at_size(self.logits(output), batch.inputs.shape[-2:]).argmax(1)
        predictions = []
        for mask in masks:
            labels, counts = mask.unique(return_counts=True)
            order = counts.argsort(descending=True, stable=True)[:top]
            entries = [
                {**classes.entry(int(labels[place])), "share": int(counts[place]) / mask.numel()}
                for place in order
            ]
            predictions.append(Prediction({"classes": entries}, Overlay(mask=mask)))
        return predictions

    def decisions(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the most likely class of every pixel, and the true one; both (N, H, W)."""
        return self.resized(output, batch).argmax(1), batch.labels

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless data, masks and logits have the classes of the task."""
        check_num_classes(self.num_classes, data)
        self._check_range(batch.labels)
        self.loss(output, batch)

    def overlays(self, batch: Batch, output: Any = None) -> Sequence[Overlay]:
        """Return the class of every pixel: the true one, or the most likely one of an output."""
        if output is None:
            return mask_overlays(batch.labels)
        return mask_overlays(self.resized(output, batch).argmax(1))

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return SegmentationMetrics(self.num_classes, self.resized, self.names)

    def chance_level(self) -> float:
        """Return an upper bound of the mean IoU of one class everywhere."""
        return 1 / self.num_classes

    def _checked(self, logits: Any) -> Tensor:
        if (
            not isinstance(logits, Tensor)
            or logits.ndim != 4
            or logits.shape[1] != self.num_classes
        ):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(
                f"the network gives {got}, but the task has {self.num_classes} classes and needs "
                f"logits (N, {self.num_classes}, h, w), by themselves or as 'out' or 'logits' of a "
                "mapping; check the network's num_classes and task.num_classes"
            )
        return logits

    def _cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        resized = _resized(logits, masks).float()
        try:
            total = F.cross_entropy(resized, masks, ignore_index=IGNORE_INDEX, reduction="sum")
        except (IndexError, RuntimeError):
            # The CPU says at once that a class is out of range, an accelerator only later.
            self._check_range(masks)
            raise
        return mean_over_ranks(total, (masks != IGNORE_INDEX).sum())

    def _check_range(self, masks: Tensor) -> None:
        classes = masks[masks != IGNORE_INDEX]
        if not classes.numel():
            return
        lowest = int(classes.min())
        highest = int(classes.max())
        if lowest < 0 or highest >= self.num_classes:
            raise UserError(
                f"classes in the masks run from {lowest} to {highest}, but the task has "
                f"{self.num_classes} (0 to {self.num_classes - 1}); "
                "check task.num_classes and the data's classes"
            )


def _resized(logits: Tensor, masks: Tensor) -> Tensor:
    if masks.ndim != 3 or len(masks) != len(logits):
        raise UserError(
            f"{tuple(masks.shape)} masks for {tuple(logits.shape)} logits; "
            "give one mask (H, W) an image"
        )
    return _at_size(logits, [int(side) for side in masks.shape[1:]])


def _at_size(logits: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, list(size), mode="bilinear", align_corners=False)

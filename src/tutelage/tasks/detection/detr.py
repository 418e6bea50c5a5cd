"""Object detection with Hugging Face's detectors of the DETR family: RT-DETR, D-FINE, DETR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Batch, Metrics, Overlay, Task, Teacher
from tutelage.core.task import check_num_classes
from tutelage.errors import UserError
from tutelage.tasks._overlays import box_overlays
from tutelage.tasks.detection._crowds import single_objects
from tutelage.tasks.detection.metrics import DetectionMetrics
from tutelage.tasks.detection.teacher import PixelTeacher

MAX_DETECTIONS = 100  # as many boxes of an image as COCO counts


class TransformerDetection(Task):
    """Boxes with labels, from a `…ForObjectDetection` of Hugging Face transformers.

    Batches are those of `Detection`. Images are resized to a square, as the models' processors do
    it; the networks take `pixel_values` (N, 3, size, size) in [0, 1] and `labels`, and give `loss`,
    `logits` and `pred_boxes`. Label 1 of the data is the model's label 0.

    >>> TransformerDetection(num_labels=80, size=320).size
    320

    Args:
        num_labels: of the model, without a background.
        size: side of the square in pixels.
        names: of the classes, for the metrics by class.
        focal: True for models with a sigmoid for each class (RT-DETR, D-FINE, Deformable DETR);
            False for DETR, whose last logit is "no object".

    Raises:
        UserError: If num_labels or size is too small.
    """

    monitor = "ap"
    min_gain_over_chance = 0.01

    def __init__(
        self, num_labels: int, size: int = 640, names: Sequence[str] = (), focal: bool = True
    ) -> None:
        if num_labels < 1 or size < 32:
            raise UserError(
                f"num_labels is at least 1 and size at least 32, got {num_labels} and {size}"
            )
        self.num_labels = num_labels
        self.size = size
        self.names = tuple(names)
        self.focal = focal

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the images as one tensor, and the boxes as the model wants them.

        These are center and size, relative to the image, without regions of many objects.
        """
        images = [self._resized(image) for image in batch.inputs]
        labels = [
            _relative_target(image, target)
            for image, target in zip(batch.inputs, batch.labels, strict=True)
        ]
        return ({"pixel_values": torch.cat(images), "labels": labels},)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the model's own loss: matching, classes, boxes.

        Raises:
            UserError: If the output has no loss.
        """
        if not isinstance(output, Mapping) or not isinstance(output.get("loss"), Tensor):
            raise UserError(
                f"the network gives a {type(output).__name__} without 'loss'; "
                "use a …ForObjectDetection of transformers"
            )
        loss: Tensor = output["loss"]
        return loss

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless data, labels and network have the classes of the task."""
        check_num_classes(self.num_labels + 1, data)  # the data counts the background
        self.loss(output, batch)
        num_classes = output["logits"].shape[-1] - (0 if self.focal else 1)
        highest = max(
            (int(target["labels"].max()) for target in batch.labels if len(target["labels"])),
            default=1,
        )
        if num_classes != self.num_labels or highest > self.num_labels:
            raise UserError(
                f"the network has {num_classes} classes, the task {self.num_labels}, and labels "
                f"run to {highest}; set num_labels of the network's config and of the task to the "
                "data's number of classes"
            )

    def connect_teacher(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return the teacher fed with the images alone: it has no loss to compute."""
        return PixelTeacher(teacher)

    def detections(self, output: Any, batch: Batch) -> list[dict[str, Tensor]]:
        """Return one dict an image: `boxes` (corners in its pixels), `labels`, `scores`."""
        logits = output["logits"].float()
        scores = logits.sigmoid() if self.focal else logits.softmax(-1)[..., :-1]
        num_classes = scores.shape[-1]
        # The best pairs of a query and a class; a query may give several boxes.
        pairs = scores.flatten(1)
        best, index = pairs.topk(min(MAX_DETECTIONS, pairs.shape[1]))
        detections = []
        for row, image in enumerate(batch.inputs):
            query = index[row] // num_classes
            center, size = output["pred_boxes"][row][query].float().split(2, 1)
            corners = torch.cat([center - size / 2, center + size / 2], 1)
            detections.append(
                {
                    "boxes": corners * corners.new_tensor(_sides(image)),
                    "labels": index[row] % num_classes + 1,
                    "scores": best[row],
                }
            )
        return detections

    def overlays(self, batch: Batch, output: Any = None) -> Sequence[Overlay]:
        """Return the true boxes of single objects, or the boxes of an output."""
        return box_overlays(batch.labels if output is None else self.detections(output, batch))

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return DetectionMetrics(self.detections, self.names)

    def chance_level(self) -> float:
        """Return the average precision of a guess, which is close to 0."""
        return 0.0

    def _resized(self, image: Tensor) -> Tensor:
        """Return an image (3, H, W) as (1, 3, size, size)."""
        return F.interpolate(
            image[None],
            (self.size, self.size),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )


def _relative_target(image: Tensor, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    boxes = target["boxes"]
    labels = target["labels"]
    single = single_objects(target)
    if single is not None:
        boxes = boxes[single]
        labels = labels[single]
    corners = boxes / boxes.new_tensor(_sides(image))
    low = corners[:, :2]
    high = corners[:, 2:]
    return {"class_labels": labels - 1, "boxes": torch.cat([(low + high) / 2, high - low], 1)}


def _sides(image: Tensor) -> list[int]:
    """Return width, height, width, height of an image (3, H, W)."""
    height, width = image.shape[1:]
    return [width, height, width, height]

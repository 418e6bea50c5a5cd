"""Object detection with Hugging Face's detectors of the DETR family: RT-DETR, D-FINE, DETR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core import Metrics, Output, Sketch, Task
from tutelage.errors import UserError
from tutelage.tasks.detection_metrics import DetectionMetrics
from tutelage.tasks.sketch import boxes_sketch

KEPT = 100  # boxes an image that count


class TransformerDetection(Task):
    """Boxes with labels, found by a `…ForObjectDetection` of Hugging Face transformers.

    Batches are those of `Detection`. Images are resized to a square, as the models' processors do it; the networks take
    `pixel_values` (N, 3, size, size) in [0, 1] and `labels`, and give `loss`, `logits` and `pred_boxes`. Label 1 of the
    data is the model's label 0.

    >>> TransformerDetection(num_labels=80, size=320).size
    320

    Args:
        num_labels: of the model, without a background.
        size: side of the square in pixels.
        names: of the classes, for the figures by class.
        focal: True for models with a sigmoid for each class (RT-DETR, D-FINE, Deformable DETR); False for DETR, whose
            last logit is "no object".
    """

    select = "ap"
    margin = 0.01
    evaluation_batch = 8

    def __init__(self, num_labels: int, size: int = 640, names: Sequence[str] = (), focal: bool = True) -> None:
        if num_labels < 1 or size < 32:
            raise UserError(f"num_labels is at least 1 and size at least 32, got {num_labels} and {size}")
        self.num_labels, self.size, self.names, self.focal = num_labels, size, tuple(names), focal

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the images as one tensor, and the boxes as the model wants them: centre and size, relative."""
        square = [
            F.interpolate(image[None], (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
            for image in batch[0]
        ]
        labels = []
        for image, target in zip(batch[0], batch[1], strict=True):
            single = ~target["iscrowd"].bool() if "iscrowd" in target else slice(None)
            corners = target["boxes"][single] / target["boxes"].new_tensor([image.shape[2], image.shape[1]] * 2)
            boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
            labels.append({"class_labels": target["labels"][single] - 1, "boxes": boxes})
        return ({"pixel_values": torch.cat(square), "labels": labels},)

    def teacher_inputs(self, inputs: tuple[Any, ...], student: Output) -> tuple[Any, ...]:
        """Return the images alone: the teacher has no loss to compute."""
        return ({"pixel_values": inputs[0]["pixel_values"]},)

    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the model's own loss: matching, classes, boxes."""
        if not isinstance(out, Mapping) or not isinstance(out.get("loss"), Tensor):
            raise UserError(
                f"the network gives a {type(out).__name__} without 'loss'; use a …ForObjectDetection of transformers"
            )
        loss: Tensor = out["loss"]
        return loss

    def accept(self, out: Any, batch: Any) -> None:
        """Refuse outputs of another kind, and labels that the model does not have."""
        self.loss(out, batch)
        classes = out["logits"].shape[-1] - (0 if self.focal else 1)
        highest = max((int(target["labels"].max()) for target in batch[1] if len(target["labels"])), default=1)
        if classes != self.num_labels or highest > self.num_labels:
            raise UserError(
                f"the network has {classes} classes, the task {self.num_labels}, and labels run to {highest}; set "
                "num_labels of the network's config and of the task to the data's number of classes"
            )

    def detections(self, out: Any, batch: Any) -> list[dict[str, Tensor]]:
        """Return one dict an image: `boxes` (corners in the image's pixels), `labels`, `scores`."""
        scores = out["logits"].float().sigmoid() if self.focal else out["logits"].float().softmax(-1)[..., :-1]
        flat = scores.flatten(1)
        best, place = flat.topk(min(KEPT, flat.shape[1]))
        found = []
        for row, image in enumerate(batch[0]):
            query = place[row] // scores.shape[-1]
            centre, extent = out["pred_boxes"][row][query].float().split(2, 1)
            corners = torch.cat([centre - extent / 2, centre + extent / 2], 1)
            sides = corners.new_tensor([image.shape[2], image.shape[1]] * 2)
            labels = place[row] % scores.shape[-1] + 1
            found.append({"boxes": corners * sides, "labels": labels, "scores": best[row]})
        return found

    def sketch(self, batch: Any, out: Any = None) -> list[Sketch]:
        """Return the boxes of single objects, or those that a detector found."""
        return boxes_sketch(batch[1] if out is None else self.detections(out, batch))

    def class_count(self) -> int:
        """Return the number of classes, with the background that the data counts."""
        return self.num_labels + 1

    def metrics(self) -> Metrics:
        """Return fresh running metrics."""
        return DetectionMetrics(self.detections, self.names)

    def chance(self) -> float:
        """Return the precision of a guess: next to none."""
        return 0.0

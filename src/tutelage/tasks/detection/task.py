"""Object detection with torchvision's detectors, or any that are called like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Batch, FrozenTeacher, Metrics, Overlay, Task, Teacher, Teachers
from tutelage.core.prediction import ClassMap, Prediction
from tutelage.core.task import check_num_classes
from tutelage.errors import UserError
from tutelage.tasks._overlays import box_overlays
from tutelage.tasks.detection._crowds import single_objects
from tutelage.tasks.detection.metrics import DetectionMetrics
from tutelage.tasks.detection.precision import keep_boxes_in_float32
from tutelage.tasks.detection.teacher import BackboneTeacher, check_transforms

FIELDS = ("boxes", "labels", "scores")


class Detection(Task):
    """Boxes with labels, from a detector that computes its own losses.

    The inputs of a batch are a list of images (3, H, W) in [0, 1], its labels a list of dicts with
    `boxes` (n, 4) corners in pixels, `labels` (n,) from 1 on, `area`, `iscrowd`, `image_id`. The
    network takes both lists and returns a dict of losses in train mode, and a list of dicts with
    `boxes`, `labels` and `scores` in eval mode.

    In training the teacher's backbone is fed with the images that the student's transform made, so
    that the maps of both have the same sizes whatever sizes the student draws. The teacher's heads
    do not run, unless a method reads a layer of `roi_heads`, as of Faster R-CNN: then they classify
    the proposals on which the student trains.

    >>> Detection(num_classes=91)
    Detection(num_classes=91, names=(), transform='transform', backbone='backbone')

    Args:
        num_classes: with the background, label 0.
        names: of the classes, from label 1 on, for the metrics by class.
        transform: module of the student whose first output is an image list with `tensors`; None
            feeds the teacher with the images, through its own transform.
        backbone: module of the teacher that runs in training and holds the layers to record.

    Raises:
        UserError: If num_classes is below 2.
    """

    monitor = "ap"
    min_gain_over_chance = 0.01

    def __init__(
        self,
        num_classes: int,
        names: Sequence[str] = (),
        transform: str | None = "transform",
        backbone: str = "backbone",
    ) -> None:
        if not isinstance(num_classes, int) or num_classes < 2:
            raise UserError(
                f"num_classes counts the background, so it is at least 2, got {num_classes!r}"
            )
        self.num_classes = num_classes
        self.names = tuple(names)
        self.transform = transform
        self.backbone = backbone

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return the images and the targets without regions of many objects (`iscrowd`).

        Without labels it is the images alone.
        """
        if batch.get("labels") is None:
            return (batch.inputs,)
        return batch.inputs, [_without_crowds(target) for target in batch.labels]

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the sum of the detector's losses.

        Raises:
            UserError: If the output is no mapping of losses.
        """
        if not isinstance(output, Mapping) or not output:
            raise UserError(
                "a detector in train mode gives a dict of losses, got a "
                f"{type(output).__name__}; put it into train mode"
            )
        return torch.stack(list(output.values())).sum()

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless data and labels have the classes of the task, and the output detections."""
        check_num_classes(self.num_classes, data)
        self.detections(output, batch)
        labels = torch.cat([target["labels"] for target in batch.labels])
        if not len(labels):
            return
        lowest = int(labels.min())
        highest = int(labels.max())
        if lowest < 1 or highest >= self.num_classes:
            raise UserError(
                f"labels run from {lowest} to {highest}, but the task has {self.num_classes} "
                f"classes with the background (1 to {self.num_classes - 1}); check task.num_classes"
            )

    def prepare_network(self, network: nn.Module) -> None:
        """Keep anchors and boxes in float32 while the layers run in half precision."""
        keep_boxes_in_float32(network, self.backbone)

    def connect_teacher(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return the teacher's backbone, fed with the student's transformed images.

        Raises:
            UserError: If a module is missing, or if the two do not prepare images alike.
        """
        if isinstance(teacher, Teachers):
            connected = {
                name: self.connect_teacher(single, student)
                for name, single in teacher.teachers.items()
            }
            return Teachers(connected)
        if self.transform is None or not isinstance(teacher, FrozenTeacher):
            return teacher
        check_transforms(student, teacher.model, self.transform)
        return BackboneTeacher(teacher, self.backbone, self.transform, student)

    def detections(self, output: Any, batch: Batch) -> list[dict[str, Tensor]]:
        """Return one dict an image: `boxes`, `labels`, `scores`.

        Raises:
            UserError: If the output is something else.
        """
        if (
            not isinstance(output, Sequence)
            or len(output) != len(batch.inputs)
            or not all(set(FIELDS) <= set(image) for image in output)
        ):
            raise UserError(
                f"the network gives a {type(output).__name__} in eval mode; a detector gives one "
                f"dict an image with {', '.join(FIELDS)}, as torchvision's do"
            )
        return list(output)

    def outputs(self, output: Any, inputs: Any) -> dict[str, Tensor]:
        """Return boxes, labels and scores of the only image as what an exported network gives."""
        (image,) = output
        return {name: image[name] for name in FIELDS}

    def predictions(
        self, output: Any, batch: Batch, classes: ClassMap, top: int | None
    ) -> list[Prediction]:
        """Return the boxes of each image with the highest scores, in pixels of the image."""
        predictions = []
        for overlay in box_overlays(self.detections(output, batch)):
            boxes, labels, scores = (
                values[:top]  # the highest scores come first
                for values in (overlay.boxes, overlay.labels, overlay.scores)
                if values is not None
            )
            entries = [
                {**classes.entry(label), "score": round(score, 6), "box": corners}
                for label, score, corners in zip(
                    labels.tolist(), scores.tolist(), _rounded(boxes), strict=True
                )
            ]
            predictions.append(Prediction({"boxes": entries}, Overlay(boxes, labels, scores)))
        return predictions

    def overlays(self, batch: Batch, output: Any = None) -> Sequence[Overlay]:
        """Return the true boxes of single objects, or the boxes of an output."""
        return box_overlays(batch.labels if output is None else self.detections(output, batch))

    def metrics(self) -> Metrics:
        """Return new running metrics."""
        return DetectionMetrics(self.detections, self.names)

    def chance_level(self) -> float:
        """Return the average precision of a guess, which is close to 0."""
        return 0.0


def _rounded(boxes: Tensor) -> list[list[float]]:
    return [[round(value, 2) for value in corners] for corners in boxes.tolist()]


def _without_crowds(target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    single = single_objects(target)
    if single is None:
        return dict(target)
    return {"boxes": target["boxes"][single], "labels": target["labels"][single]}

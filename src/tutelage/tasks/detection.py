"""Object detection with torchvision's detectors, or any that are called like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Metrics, Network, Output, Sketch, Task, Teacher
from tutelage.errors import UserError
from tutelage.tasks.detection_metrics import DetectionMetrics
from tutelage.tasks.detector_teacher import BackboneTeacher, check_transforms
from tutelage.tasks.sketch import boxes_sketch

FIELDS = ("boxes", "labels", "scores")


class Detection(Task):
    """Boxes with labels, found by a detector that computes its own losses.

    A batch is `(images, targets, ids)`: a list of images (3, H, W) in [0, 1], and a list of dicts with `boxes` (n, 4)
    corners in pixels, `labels` (n,) from 1 on, `area`, `iscrowd`, `image_id`. The network takes both lists and returns
    a dict of losses in train mode, a list of dicts with `boxes`, `labels` and `scores` in eval mode.

    In training the teacher's backbone is fed with what the student's transform made of the images, so that the maps of
    both have the same sizes whatever sizes the student draws; neither the teacher's head nor its box code runs.

    >>> Detection(num_classes=91)
    Detection(num_classes=91, names=(), transform='transform', backbone='backbone')

    Args:
        num_classes: with the background, label 0.
        names: of the classes, from label 1 on, for the figures by class.
        transform: module of the student whose first output is an image list with `tensors`; None feeds the teacher with
            the images, through a transform of its own.
        backbone: module of the teacher that runs in training and holds the taps.
    """

    select = "ap"
    margin = 0.01
    evaluation_batch = 8

    def __init__(
        self,
        num_classes: int,
        names: Sequence[str] = (),
        transform: str | None = "transform",
        backbone: str = "backbone",
    ) -> None:
        if num_classes < 2:
            raise UserError(f"num_classes counts the background, so it is at least 2, got {num_classes}")
        self.num_classes, self.names, self.transform, self.backbone = num_classes, tuple(names), transform, backbone
        self.student_taps = () if transform is None else (f"{transform}[0][tensors]",)

    def inputs(self, batch: Any) -> tuple[Any, ...]:
        """Return the images and the targets; regions of many objects are nothing to learn from."""
        return batch[0], [_single(target) for target in batch[1]]

    def teacher_inputs(self, inputs: tuple[Any, ...], student: Output) -> tuple[Any, ...]:
        """Return the student's transformed images, or all inputs without a transform to share."""
        return tuple(student.tap(name) for name in self.student_taps) or inputs

    def in_training(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return the teacher's backbone, ready for the student's transformed images.

        Raises:
            UserError: a module is missing, or the two do not prepare images alike.
        """
        if self.transform is None or not isinstance(teacher, Network):
            return teacher
        check_transforms(student, teacher.network, self.transform)
        return BackboneTeacher(teacher, self.backbone)

    def loss(self, out: Any, batch: Any) -> Tensor:
        """Return the sum of the detector's losses."""
        if not isinstance(out, Mapping) or not out:
            raise UserError(
                f"a detector in train mode gives a dict of losses, got a {type(out).__name__}; put it into train mode"
            )
        total: Tensor = torch.stack([value for value in out.values()]).sum()
        return total

    def accept(self, out: Any, batch: Any) -> None:
        """Refuse anything but detections, and labels that the task does not have."""
        self.detections(out, batch)
        labels = torch.cat([target["labels"] for target in batch[1]])
        if len(labels) and not 1 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise UserError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, but the task has {self.num_classes} "
                f"classes with the background (1 to {self.num_classes - 1}); check task.num_classes"
            )

    def detections(self, out: Any, batch: Any) -> list[dict[str, Tensor]]:
        """Return one dict an image: `boxes`, `labels`, `scores`."""
        if not isinstance(out, Sequence) or len(out) != len(batch[0]) or not all(set(FIELDS) <= set(o) for o in out):
            raise UserError(
                f"the network gives a {type(out).__name__} in eval mode; a detector gives one dict an image with "
                f"{', '.join(FIELDS)}, as torchvision's do"
            )
        return list(out)

    def sketch(self, batch: Any, out: Any = None) -> list[Sketch]:
        """Return the boxes of single objects, or those that a detector found."""
        return boxes_sketch(batch[1] if out is None else self.detections(out, batch))

    def class_count(self) -> int:
        """Return the number of classes, with the background."""
        return self.num_classes

    def metrics(self) -> Metrics:
        """Return fresh running metrics."""
        return DetectionMetrics(self.detections, self.names)

    def chance(self) -> float:
        """Return the precision of a guess: next to none."""
        return 0.0


def _single(target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if "iscrowd" not in target:
        return dict(target)
    single = ~target["iscrowd"].bool()
    return {"boxes": target["boxes"][single], "labels": target["labels"][single]}

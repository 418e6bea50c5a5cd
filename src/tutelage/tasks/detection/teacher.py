"""Detectors as teachers: what of them runs in training, and on which images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tutelage.core import Batch, FrozenTeacher, Output, Teacher
from tutelage.core.taps import Address, find_module
from tutelage.errors import UserError
from tutelage.tasks.detection.proposals import HEADS, ProposalTeacher, reads_heads

SHARED_SETTINGS = ("image_mean", "image_std", "size_divisible")


class BackboneTeacher(Teacher):
    """A detector whose backbone is fed with the student's resized, normalized and padded images.

    A detector draws the size of each image at random while it trains, so a teacher with its own
    transform would see another size. Neither its head nor its box code runs in training. In
    evaluation (`student` is None) the whole detector runs.

    Args:
        teacher: the detector.
        backbone: address of the part to run in training; the layers to record lie within it.
        transform: module of the student whose first output is an image list with `tensors`.
        student: the student, whose proposals are taken if layers of the heads are recorded.

    Raises:
        UserError: If the teacher has no such module.
    """

    def __init__(
        self, teacher: FrozenTeacher, backbone: str, transform: str, student: nn.Module
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.backbone = backbone
        self.transform = transform
        self.student_layers = (f"{transform}[0][tensors]",)
        self._backbone = teacher.module(backbone)

    def with_taps(self, layers: Sequence[str]) -> Teacher:
        """Return a teacher that records these layers of the backbone.

        With layers of `roi_heads` it is one whose box head runs on the student's proposals, too.

        Raises:
            UserError: If a layer lies outside of both.
        """
        if reads_heads(layers):
            with_heads = ProposalTeacher(self.teacher, self.student, self.backbone, self.transform)
            return with_heads.with_taps(layers)
        for layer in layers:
            module = Address.parse(layer).module
            if module != self.backbone and not module.startswith(f"{self.backbone}."):
                raise UserError(
                    f"the layer {layer!r} of the teacher lies outside of its {self.backbone!r}, "
                    f"the only part that runs in training beside {HEADS!r}; use {self.backbone!r}, "
                    "or set task.backbone to the part that holds it"
                )
        teacher = self.teacher.with_taps(layers)
        return BackboneTeacher(teacher, self.backbone, self.transform, self.student)

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Run the backbone on the student's images (N, 3, H, W), or all of it on the inputs."""
        if student is None:
            return self.teacher(batch, inputs)
        images = student.feature(self.student_layers[0])
        return self.teacher.run(self._backbone, (images,))

    def models(self) -> Mapping[str, nn.Module]:
        """Return the detector."""
        return self.teacher.models()

    def __repr__(self) -> str:
        return f"BackboneTeacher({self.teacher}, backbone={self.backbone!r})"


class PixelTeacher(Teacher):
    """A teacher that gets no labels in training, so that it computes no loss.

    Args:
        teacher: takes a mapping with `pixel_values` and `labels`, and needs only the former.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.student_layers = teacher.student_layers

    def with_taps(self, layers: Sequence[str]) -> PixelTeacher:
        """Return a teacher that records these layers."""
        return PixelTeacher(self.teacher.with_taps(layers))

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Run the teacher on the images; in evaluation on all inputs."""
        if student is not None:
            inputs = ({"pixel_values": inputs[0]["pixel_values"]},)
        return self.teacher(batch, inputs, student)

    def models(self) -> Mapping[str, nn.Module]:
        """Return the networks of the teacher."""
        return self.teacher.models()

    def __repr__(self) -> str:
        return f"PixelTeacher({self.teacher})"


def check_transforms(student: nn.Module, teacher: nn.Module, transform: str) -> None:
    """Raise unless both detectors prepare images alike.

    Args:
        student: a detector.
        teacher: a detector.
        transform: name of the module that prepares the images, in both.

    Raises:
        UserError: If one has no module of that name, or if the statistics or the padding differ.
    """
    student_transform = find_module(student, transform)
    teacher_transform = find_module(teacher, transform)
    for name in SHARED_SETTINGS:
        student_value = getattr(student_transform, name, None)
        teacher_value = getattr(teacher_transform, name, None)
        if student_value != teacher_value:
            raise UserError(
                f"the student's {transform}.{name} is {student_value} and the teacher's "
                f"{teacher_value}, but the teacher is fed with the student's transformed images; "
                f"make both detectors with the same {name}"
            )

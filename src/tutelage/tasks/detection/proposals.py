"""A two-stage detector as the teacher: its box head on the student's proposals."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tutelage.core import Batch, FrozenTeacher, Output, Teacher
from tutelage.core.taps import Address, find_module
from tutelage.errors import UserError

HEADS = "roi_heads"  # torchvision's name, in Faster R-CNN and Mask R-CNN


@dataclass
class Proposals:
    """What the student's last pass gave its box head: a hook of `roi_heads.box_roi_pool`.

    Attributes:
        boxes: of each image (n, 4), corners in pixels of the transformed images; None before a
            pass.
        sizes: height and width of each transformed image, without padding.
    """

    boxes: Sequence[Tensor] | None = None
    sizes: Sequence[tuple[int, int]] = ()

    def __call__(self, pool: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Record the arguments: maps, boxes, sizes."""
        _, self.boxes, self.sizes = arguments


class BoxBranch(nn.Module):
    """Backbone and box head of a two-stage detector, on images and boxes that are given.

    Args:
        detector: such as torchvision's `FasterRCNN`; the branch has no parameters of its own.
        backbone: name of its backbone.
    """

    def __init__(self, detector: nn.Module, backbone: str) -> None:
        super().__init__()
        self._backbone = [find_module(detector, backbone)]
        self._heads: list[Any] = [find_module(detector, HEADS)]

    def forward(
        self, images: Tensor, boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> Any:
        """Run the box predictor on the boxes of all images; return the maps of the backbone."""
        maps = self._backbone[0](images)
        heads = self._heads[0]
        named = {"0": maps} if isinstance(maps, Tensor) else maps
        heads.box_predictor(heads.box_head(heads.box_roi_pool(named, boxes, sizes)))
        return maps


class ProposalTeacher(Teacher):
    """A two-stage detector that classifies the proposals on which the student trains.

    The rows of `roi_heads.box_predictor[0]` of both networks are then the same boxes. In evaluation
    (`student` is None) the whole detector runs.

    Args:
        teacher: the detector.
        student: a detector of the same kind; a hook on it records its proposals, and goes with this
            teacher.
        backbone: name of the teacher's backbone.
        transform: module of the student whose first output is an image list with `tensors`.

    Raises:
        UserError: If one of them has no box head.
    """

    def __init__(
        self, teacher: FrozenTeacher, student: nn.Module, backbone: str, transform: str
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.backbone = backbone
        self.transform = transform
        self.student_layers = (f"{transform}[0][tensors]",)
        self._branch = BoxBranch(teacher.model, backbone)
        self._proposals = Proposals()
        pool = find_module(student, f"{HEADS}.box_roi_pool")
        handle = pool.register_forward_pre_hook(self._proposals)
        weakref.finalize(self, handle.remove).atexit = False

    def with_taps(self, layers: Sequence[str]) -> ProposalTeacher:
        """Return a teacher that records these layers of backbone and box head."""
        teacher = self.teacher.with_taps(layers)
        tapped = ProposalTeacher(teacher, self.student, self.backbone, self.transform)
        tapped.other_rows = [layer for layer in layers if reads_heads([layer])]
        return tapped

    def __call__(
        self, batch: Batch, inputs: tuple[Any, ...], student: Output | None = None
    ) -> Output:
        """Run backbone and box head on the student's images (N, 3, H, W) and proposals.

        Raises:
            UserError: If the student did not train its box head in this pass.
        """
        if student is None:
            return self.teacher(batch, inputs)
        boxes, sizes = self._proposals.boxes, self._proposals.sizes
        self._proposals.boxes = None
        if boxes is None:
            raise UserError(
                "the student's box head did not run in this pass, so there are no proposals for "
                "the teacher; a student that was exchanged needs a new Distiller"
            )
        images = student.feature(self.student_layers[0])
        return self.teacher.run(self._branch, (images, boxes, sizes))

    def models(self) -> Mapping[str, nn.Module]:
        """Return the detector."""
        return self.teacher.models()

    def __repr__(self) -> str:
        return f"ProposalTeacher({self.teacher})"


def reads_heads(layers: Sequence[str]) -> bool:
    """Return whether a layer lies in the heads of a two-stage detector.

    >>> reads_heads(["backbone[0]", "roi_heads.box_predictor[0]"])
    True
    """
    return any(Address.parse(layer).module.split(".")[0] == HEADS for layer in layers)

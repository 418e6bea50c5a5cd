"""Feature mimicking: the student's features, brought to the teacher's width, regress the teacher's.

Source: A. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, eq. 3, with the 1×1
regressor that became usual since (official code adri-romsor/FitNets, Theano).

    L = task_weight · task + weight · Σ_pairs mean((P f_s - f_t)²)

f_s, f_t: feature maps (N, C, H, W), tokens (N, L, C) or vectors (N, C); P: a 1×1 convolution or a linear layer
without bias where the widths differ, else the identity. The mean is over all elements, so that the weight means
the same for every size of map.

Differs from the paper: the hints act beside the task loss over the whole run instead of in a stage of their own
before it, on any number of pairs, and a map of another size is resized bilinearly to the teacher's.

Cost: the projection, C_s · C_t parameters and as many multiplications a position; it is dropped when the student ships.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods.parts import check_finite, check_floating, check_layout
from tutelage.similarity.gram import full_precision, promote


def mimic_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two feature tensors of one shape.

    >>> import torch
    >>> mimic_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0

    Args:
        student: features of any shape and floating dtype.
        teacher: features of the same shape.

    Returns:
        A scalar, float32 for half precision and inside autocast.

    Raises:
        UserError: the shapes differ, a tensor is empty, or a dtype is not floating.
    """
    if student.shape != teacher.shape or not student.numel():
        raise UserError(
            f"mimicking needs features of one shape, got {tuple(student.shape)} from the student and "
            f"{tuple(teacher.shape)} from the teacher; use the Mimic method, which projects the student's"
        )
    check_floating("mimicking needs floating-point features", student, teacher)
    with full_precision(student.device):
        return F.mse_loss(promote(student), promote(teacher))


class Mimic(Method):
    """Feature regression; one term `mimic.<student tap>` per pair.

    >>> Mimic(pairs={"stage3": "layer3"}).extra_repr()
    "pairs={'stage3': 'layer3'}, weight=1.0, task_weight=1.0"

    Args:
        pairs: student tap → teacher tap.
        weight: factor of each pair's term.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="A. Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv 1412.6550",
        tasks="classification, detection, segmentation",
        needs="pairs of taps of equal rank; widths and map sizes may differ",
        trains="a 1×1 projection per pair whose widths differ",
    )

    def __init__(self, pairs: Mapping[str, str], weight: float = 1.0, task_weight: float = 1.0) -> None:
        super().__init__()
        if not pairs:
            raise UserError("Mimic needs at least one pair of taps, such as pairs={'layer3': 'layer3'}")
        self.pairs, self.weight, self.task_weight = dict(pairs), weight, task_weight
        self.student_taps, self.teacher_taps = tuple(self.pairs), tuple(self.pairs.values())
        self.projections = nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the projections from the shapes of one batch."""
        check_finite(example)
        self.projections = nn.ModuleList(
            projection(example.student.tap(mine), example.teacher.tap(theirs), f"{mine} → {theirs}")
            for mine, theirs in self.pairs.items()
        )

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return one term per pair."""
        terms = {}
        for (mine, theirs), project in zip(self.pairs.items(), self.projections, strict=True):
            told = step.teacher.tap(theirs)
            features = project(step.student.tap(mine))
            if features.ndim == 4 and features.shape[-2:] != told.shape[-2:]:
                features = F.interpolate(features, told.shape[-2:], mode="bilinear", align_corners=False)
            terms[f"mimic.{mine}"] = self.weight * mimic_loss(features, told)
        return terms


def projection(student: Tensor, teacher: Tensor, pair: str) -> nn.Module:
    """Return what brings features to the teacher's width: a 1×1 convolution, a linear layer, or nothing.

    >>> import torch
    >>> projection(torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 8, 8), "a → b")
    Conv2d(4, 6, kernel_size=(1, 1), stride=(1, 1), bias=False)

    Raises:
        UserError: the ranks differ, or are none of 2, 3 and 4; tokens differ in number; a map has its channels last.
    """
    if student.ndim != teacher.ndim or student.ndim not in (2, 3, 4):
        raise UserError(
            f"the pair {pair} gives features {tuple(student.shape)} and {tuple(teacher.shape)}; tap maps "
            "(N, C, H, W), tokens (N, L, C) or vectors (N, C), of the same kind on both sides"
        )
    if student.ndim == 3 and student.shape[1] != teacher.shape[1]:
        raise UserError(
            f"the pair {pair} has {student.shape[1]} and {teacher.shape[1]} tokens; tap layers of equal grids"
        )
    check_layout(student, teacher, pair)
    width = 1 if student.ndim == 4 else -1
    mine, theirs = student.shape[width], teacher.shape[width]
    if mine == theirs:
        return nn.Identity()
    return nn.Conv2d(mine, theirs, 1, bias=False) if student.ndim == 4 else nn.Linear(mine, theirs, bias=False)

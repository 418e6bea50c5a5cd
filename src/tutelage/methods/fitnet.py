"""FitNet: the student's features, projected to the teacher's width, regress the teacher's.

Source: A. Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550, eq. 3,
with the 1×1 regressor that became usual since (official code adri-romsor/FitNets, Theano).

    L = task_weight · task + weight · Σ_pairs mean((P f_s - f_t)²)

f_s, f_t: feature maps (N, C, H, W), tokens (N, L, C) or vectors (N, C). P: a 1×1 convolution or a
linear layer without bias where the widths differ, else the identity. The mean is over all elements,
so the weight means the same for every size of map.

Differs from the paper:
- The hints act beside the task loss over the whole run, not in a stage of their own before it, and
  on any number of pairs.
- A map of another size is resized bilinearly to the teacher's.

Cost: the projection, C_s · C_t parameters and as many multiplications a position; it is dropped
when the student is deployed.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step
from tutelage.core.precision import full_precision
from tutelage.core.search_space import Around
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.methods._checks import check_floating, check_weights
from tutelage.methods._layer_pairs import check_built, checked_pairs
from tutelage.methods._projection import projection
from tutelage.similarity._checks import as_same_dtype, check_tensors


def fitnet_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of two features of one shape.

    >>> import torch
    >>> fitnet_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item()
    4.0

    Args:
        student: a feature of any shape and floating dtype.
        teacher: a feature of the same shape.

    Returns:
        A scalar, float32 for half-precision features and inside autocast.

    Raises:
        UserError: If the shapes differ, a tensor is empty, or a dtype is not floating.
    """
    check_tensors("FitNet", student, teacher)
    if student.shape != teacher.shape or not student.numel():
        raise UserError(
            f"FitNet needs features of one shape, got {tuple(student.shape)} from the student and "
            f"{tuple(teacher.shape)} from the teacher; use the FitNet method, which projects the "
            "student's"
        )
    check_floating("FitNet needs floating-point features", student, teacher)
    with full_precision(student.device):
        student, teacher = as_same_dtype(student, teacher)
        return F.mse_loss(student, teacher)


class FitNet(Method):
    """Feature regression; one term `fitnet/<student layer>` per pair.

    >>> FitNet({"stage3": "layer3"}).extra_repr()
    "layer_pairs={'stage3': 'layer3'}, weight=1.0, task_weight=1.0"

    Args:
        layer_pairs: student layer → teacher layer.
        weight: factor of each pair's term.
        task_weight: factor of the supervised loss.

    Raises:
        UserError: If there are no pairs, or a layer is no name.
    """

    info = MethodInfo(
        paper="A. Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv 1412.6550",
        tasks="classification, detection, segmentation",
        needs="pairs of layers of equal rank; widths and map sizes may differ",
        trains="a 1×1 projection per pair whose widths differ",
    )
    search_space = (Around("weight", 10.0),)

    def __init__(
        self,
        layer_pairs: Mapping[str, str],
        *,
        weight: float = 1.0,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("FitNet", weight, task_weight)
        self.layer_pairs = checked_pairs("FitNet", layer_pairs)
        self.weight = weight
        self.task_weight = task_weight
        self.student_layers = tuple(self.layer_pairs)
        self.teacher_layers = tuple(self.layer_pairs.values())
        self.projections = nn.ModuleList()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the projections from the shapes of one batch."""
        self.projections = nn.ModuleList()
        for student_layer, teacher_layer in self.layer_pairs.items():
            project = projection(
                student=example.student.feature(student_layer),
                teacher=example.teacher.feature(teacher_layer),
                pair=f"{student_layer} → {teacher_layer}",
            )
            self.projections.append(project)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return one term per pair."""
        check_built("FitNet", self.projections, self.layer_pairs)
        terms = {}
        pairs = zip(self.layer_pairs.items(), self.projections, strict=True)
        for (student_layer, teacher_layer), project in pairs:
            student = project(step.student.feature(student_layer))
            teacher = step.teacher.feature(teacher_layer)
            if student.ndim == 4 and student.shape[-2:] != teacher.shape[-2:]:
                size = teacher.shape[-2:]
                student = F.interpolate(student, size, mode="bilinear", align_corners=False)
            terms[f"fitnet/{student_layer}"] = self.weight * fitnet_loss(student, teacher)
        return terms

"""AFD: attention-based feature distillation learns which student layer follows a teacher layer.

Source: M. Ji, B. Heo, S. Park, "Show, Attend and Distill: Knowledge Distillation via
Attention-based Feature Matching", AAAI 2021, arXiv 2102.02973; official code
clovaai/attention-feature-distillation@dd990d0 `distill/AFD.py`. The equations are those of the
code; the paper's text was not available.

    q_t = BN(Linear(GAP T_t)),  k_s = ReLU(BN(Linear(GAP S_s))),  b_{s,·} = BN(Linear(k_s))
    a_{t,s} = (<b_{s,t}, q_t> + <p_t, p_s>) / √d,  A_{t,·} = softmax of a_{t,·} over student layers
    L = weight · Σ_t mean_batch Σ_s A_{t,s} · ‖n(pool(mean_c S_s²)) - n(mean_c T_t²)‖² / (H_t W_t)

T_t and S_s are feature maps after ReLU, b_{s,·} is in R^{N_t × d}, p are trained vectors, and n
scales a flattened map to length 1 (`_attention_maps`). Symbols → arguments: d (the code's
`qk_dim`) `qk_dim`, β (`beta`) `weight`. The paper's loss is CE + 0.9 · KD at T = 4 + 200 · AFD:
`CombinedMethod([AFD(), KD(temperature=4, weight=0.9, task_weight=1)])`.

The error of a pair is 2 (1 - cos) / (H_t W_t), so an 8×8 stage weighs 16 times as much as a 32×32
one, and small maps want a smaller weight. Every teacher layer has a total weight of 1; a student
layer may end up unused.

Differs from the official code (the numbers are equal):
- Student layers are pooled once per size (H, W) of the teacher's maps; there, once more for
  teacher layers that differ in channels only.
- Shapes come from one real batch, not from a pass over random noise, and the teacher is never put
  into train mode.
- Computes in float32 outside autocast; there, a map of zeros becomes NaN in fp16.

The loss of an item depends on its batch through batch norm, under DDP on that of its process.
Cost: one pass over every tapped map, N_s pools per size of the teacher's maps, and N_s · N_t · d
products per item.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Around, Method, Step, Teacher
from tutelage.core.method import MethodInfo
from tutelage.core.precision import full_precision
from tutelage.methods._attention import (
    FullPrecisionLinear,
    LinearBNList,
    UninitializedModule,
    attended_distances,
    check_layers,
    check_settings,
    layer_features,
    layer_positions,
    num_channels,
)
from tutelage.methods._checks import check_weights
from tutelage.similarity._products import matmul

STAGES = ("stage1", "stage2", "stage3")


def afd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], attention: Tensor) -> Tensor:
    """Return the loss of every teacher layer; their sum is the loss of AFD.

    >>> left = torch.tensor([1.0, 0.0]).expand(2, 3, 2, 2)
    >>> attention = torch.full((2, 1, 2), 0.5)
    >>> round(afd_loss([left, left.flip(3)], [left], attention).item(), 4)
    0.25

    Args:
        student: feature maps (N, C, H, W) of the student's layers, of any widths and sizes.
        teacher: feature maps of the teacher's layers for the same batch.
        attention: weights (N, teacher layers, student layers) whose rows sum to 1.

    Returns:
        The losses (teacher layers,), float32 for half precision and inside autocast.

    Raises:
        UserError: If the features are not maps of one batch, or a teacher's map is 1×1.
    """
    return attended_distances(student, teacher, attention, distance="mean")


class Attention(nn.Module):
    """The trained part of AFD: attention of every teacher layer to the student's layers.

    Args:
        student_channels: channels of the student's layers.
        teacher_channels: channels of the teacher's layers.
        qk_dim: length of queries and keys.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], qk_dim: int
    ) -> None:
        super().__init__()
        num_students = len(student_channels)
        num_teachers = len(teacher_channels)
        self.keys = LinearBNList(student_channels, qk_dim)
        self.queries = LinearBNList(teacher_channels, qk_dim)
        self.bilinear = nn.Sequential(
            FullPrecisionLinear(qk_dim, qk_dim * num_teachers),
            nn.BatchNorm1d(qk_dim * num_teachers),
        )
        self.teacher_positions = layer_positions(num_teachers, qk_dim)
        self.student_positions = layer_positions(num_students, qk_dim)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the attention (N, teacher layers, student layers), a softmax over the last."""
        keys = F.relu(self.keys(student))
        queries = self.queries(teacher)
        n, num_students, qk_dim = keys.shape
        num_teachers = queries.shape[1]
        # One batch norm over the keys of all student layers, as in the official code.
        keys = self.bilinear(keys.flatten(0, 1))
        keys = keys.view(n, num_students, num_teachers, qk_dim)
        # <b_{s,t}, q_t> of every item: "nstd,ntd->nts".
        scores = (keys * queries.unsqueeze(1)).sum(-1).mT
        scores = scores + matmul(self.teacher_positions, self.student_positions.mT)
        return torch.softmax(scores / math.sqrt(qk_dim), 2)


class AFD(Method):
    """Attention-based feature distillation; its term is `afd`.

    >>> AFD(["a"], ["b", "c"]).extra_repr()
    "student_layers=('a',), teacher_layers=('b', 'c'), weight=200.0, qk_dim=128, task_weight=1.0"

    Args:
        student_layers: the student's layers to relate, after ReLU; the official code takes every
            residual block.
        teacher_layers: the teacher's layers to relate, after ReLU.
        weight: factor of the term; 200 is official, for maps of 8×8 to 32×32.
        qk_dim: length of queries and keys.
        task_weight: factor of the supervised loss.
    """

    info = MethodInfo(
        paper="M. Ji, B. Heo, S. Park, Show, Attend and Distill, AAAI 2021, arXiv 2102.02973",
        tasks="classification",
        needs="taps of feature maps after ReLU, of any size but 1×1; batches of 2 or more",
        trains="a query per teacher layer, a key per student layer, one layer that relates them",
    )
    search_space = (Around("weight", 10.0),)

    def __init__(
        self,
        student_layers: Sequence[str] = STAGES,
        teacher_layers: Sequence[str] = STAGES,
        *,
        weight: float = 200.0,
        qk_dim: int = 128,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("AFD", weight, task_weight)
        check_settings("AFD", student_layers, teacher_layers, qk_dim)
        self.student_layers = tuple(student_layers)
        self.teacher_layers = tuple(teacher_layers)
        self.weight = weight
        self.qk_dim = qk_dim
        self.task_weight = task_weight
        self.attention: nn.Module = UninitializedModule()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the attention from the channels of one batch's features."""
        check_layers(example, self.student_layers, self.teacher_layers)
        student_features = layer_features(example.student, self.student_layers)
        teacher_features = layer_features(example.teacher, self.teacher_layers)
        self.attention = Attention(
            num_channels(student_features), num_channels(teacher_features), self.qk_dim
        )

    def attend(self, step: Step) -> Tensor:
        """Return the attention (N, teacher layers, student layers) of a batch."""
        student = layer_features(step.student, self.student_layers)
        teacher = layer_features(step.teacher, self.teacher_layers)
        with full_precision(student[0].device):
            attention: Tensor = self.attention(student, teacher)
            return attention

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term `afd`."""
        losses = afd_loss(
            student=layer_features(step.student, self.student_layers),
            teacher=layer_features(step.teacher, self.teacher_layers),
            attention=self.attend(step),
        )
        return {"afd": self.weight * losses.sum()}

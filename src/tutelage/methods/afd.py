"""AFD, attention-based feature distillation: the student learns which of its layers each teacher layer should guide.

Source: M. Ji, B. Heo, S. Park, "Show, Attend and Distill: Knowledge Distillation via Attention-based Feature
Matching", AAAI 2021, arXiv 2102.02973; official code clovaai/attention-feature-distillation@dd990d0 `distill/AFD.py`,
whose equations these are (the paper's text was not at hand).

    q_t = BN(Linear(GAP T_t)),   k_s = ReLU(BN(Linear(GAP S_s))),   b_{s,·} = BN(Linear(k_s)) ∈ R^{N_t × d}
    a_{t,s} = (<b_{s,t}, q_t> + <p_t, p_s>) / √d,   A_{t,·} = softmax of a_{t,·} over the student's layers
    L = weight · Σ_t mean_batch Σ_s A_{t,s} · ‖n(pool(mean_c S_s²)) - n(mean_c T_t²)‖² / (H_t W_t)

T_t, S_s: feature maps after ReLU; n, pool: `energies.py`. Code → arguments: `qk_dim` `width`, `beta` `weight`. The
paper's loss is CE + 0.9 · KD at T = 4 + 200 · AFD: `Together([AFD(), KD(temperature=4, weight=0.9, task_weight=1)])`.
A pair's error is 2 (1 - cos) / (H_t W_t), so an 8×8 stage weighs 16 times a 32×32 one, and smaller maps want a
smaller weight. Every teacher layer keeps a total weight of 1; a student layer may be left out.

Differs from the official code (the numbers are equal):
- Pools are shared by layers of equal (H, W); there, layers that differ in channels only get pools of their own.
- Shapes come from one real batch, not from a pass over random noise. The teacher is never put in train mode.
- float32 outside autocast: in fp16 a dead map is NaN there.

The loss of an item depends on its batch (batch norm), and on that of its own process under DDP. Cost: one pass over
every tapped map, N_s pools per size of the teacher's maps, N_s · N_t · d products an item.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.methods import attention as shared
from tutelage.methods.energies import distances, energies, size_of, values
from tutelage.similarity.gram import full_precision

STAGES = ("stage1", "stage2", "stage3")


def afd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], attention: Tensor, distance: str = "mean") -> Tensor:
    """Return one value per teacher layer, whose sum is the loss.

    >>> left = torch.tensor([1.0, 0.0]).expand(2, 3, 2, 2)
    >>> round(afd_loss([left, left.flip(3)], [left], torch.full((2, 1, 2), 0.5)).item(), 4)
    0.25

    Args:
        student, teacher: feature maps (N, C, H, W) of the same batch, of any widths and sizes.
        attention: (N, teacher layers, student layers), rows of sum 1.
        distance: "mean" is official; "cosine" is the same, but for a factor of H·W / 2.

    Returns:
        (teacher layers,), float32 for half-precision maps and inside autocast.

    Raises:
        UserError: as `check_maps`.
    """
    shared.check_maps(student, teacher)
    with full_precision(attention.device):
        mine = energies(student)
        pooled = {size: values(mine, size) for size in dict.fromkeys(map(size_of, teacher))}
        told = [values([e]) for e in energies(teacher)]
        errors = [distances(pooled[size_of(x)], v, distance) for x, v in zip(teacher, told, strict=True)]
        return (torch.stack(errors, 1) * attention).sum(2).mean(0)


class Attention(nn.Module):
    """The trained part: maps of both → A (N, teacher layers, student layers).

    Args:
        student, teacher: channels of the layers.
        width: d of queries and keys.
    """

    def __init__(self, student: Sequence[int], teacher: Sequence[int], width: int) -> None:
        super().__init__()
        self.keys, self.queries = shared.Vectors(student, width), shared.Vectors(teacher, width)
        wide = width * len(teacher)
        self.bilinear = nn.Sequential(nn.Linear(width, wide), nn.BatchNorm1d(wide))
        self.p_t, self.p_s = shared.positions(len(teacher), width), shared.positions(len(student), width)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the softmax over the student's layers."""
        keys = F.relu(self.keys(student)).flatten(0, 1)
        keys = self.bilinear(keys).view(len(student[0]), len(student), len(teacher), -1)
        logits = torch.einsum("nstd,ntd->nts", keys, self.queries(teacher)) + self.p_t @ self.p_s.mT
        return torch.softmax(logits / math.sqrt(keys.shape[-1]), 2)


class AFD(Method):
    """Attention-based feature distillation; one term, `afd`.

    >>> AFD(["a"], ["b", "c"]).extra_repr()
    "student_taps=('a',), teacher_taps=('b', 'c'), weight=200.0, width=128, task_weight=1.0"

    Args:
        student_taps, teacher_taps: all layers to relate, after ReLU; the official code takes every residual block.
        weight: factor of the term; 200 is official, for maps of 8×8 to 32×32.
        width: d of queries and keys.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="M. Ji, B. Heo, S. Park, Show, Attend and Distill, AAAI 2021, arXiv 2102.02973",
        tasks="classification",
        needs="taps of feature maps after ReLU, of any width and size but 1×1; batches of 2 or more",
        trains="a query per teacher layer, a key per student layer, one layer that relates them",
    )

    def __init__(
        self, student_taps: Sequence[str] = STAGES, teacher_taps: Sequence[str] = STAGES, weight: float = 200.0,
        width: int = 128, task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        shared.check_settings("AFD", student_taps, teacher_taps, width)
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.weight, self.width, self.task_weight = weight, width, task_weight
        self.attention: nn.Module = shared.Unbuilt()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the attention from the shapes of one batch."""
        maps = shared.checked_maps(example, self.student_taps, self.teacher_taps)
        student, told = ([x.shape[1] for x in side] for side in maps)
        self.attention = Attention(student, told, self.width)

    def attend(self, step: Step) -> Tensor:
        """Return A (N, teacher layers, student layers) of a batch, as `attention_use` takes it."""
        maps = shared.maps_of(step, self.student_taps, self.teacher_taps)
        with full_precision(maps[0][0].device):
            attention: Tensor = self.attention(*maps)
            return attention

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the term `afd`."""
        loss = afd_loss(*shared.maps_of(step, self.student_taps, self.teacher_taps), self.attend(step))
        return {"afd": self.weight * loss.sum()}

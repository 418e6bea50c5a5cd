"""RTK-style distillation: the student's layers ask, and the teacher's layers of one stage answer with one voice.

**Reconstructed from the abstract of arXiv 2206.12788; not the authors' equations; no published number is claimed.**
Source of the idea: J.-T. Yang, S.-C. Kao, S. C.-H. Huang, "Representative Teacher Keys for Knowledge Distillation
Model Compression Based on Attention Mechanism for Image Classification", 2022. Its abstract alone was at hand, and
there is no official code: it improves the best attention-based method (AFD, as we read it), considers how similar
feature maps are, and filters out what is useless. What follows is our own, on AFD's parts.

    q_s = BN(Linear(GAP S_s)),  k_t = BN(Linear(GAP T_t)),  a_{s,t} = (<q_s, k_t> + <p_s, p_t>) / √d
    w, e, A: attention to the teacher layers of a stage (equal H × W), scores and weights of the stages, see `stages.py`
    representative of a stage:  k̃_{s,g} = Σ_{t in g} w_{s,t} k_t (its score is e),  ṽ_{s,g} = n(Σ_{t in g} w_{s,t} v_t)
    L = weight · mean_batch Σ_s Σ_g A_{s,g} · D(u_{s→g}, ṽ_{s,g})

u, v, n: the squared maps of AFD; D: see `energies.py`. Train with "cosine": the softmax runs over stages of different
size, and AFD's "mean" favours large maps whatever they show. Nothing forces the student to use every stage:
`coverage` mixes AFD's loss in, which gives each teacher layer a weight of 1, and `attention_use` shows a collapse.

Cost: as AFD's without the bilinear layer, and one weighted sum of maps per stage and student layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Method, Step, Teacher
from tutelage.core.method import Card
from tutelage.errors import UserError
from tutelage.methods import attention as shared
from tutelage.methods.afd import STAGES, Attention, afd_loss
from tutelage.methods.energies import check_distance, distances, energies, values
from tutelage.methods.stages import StageAttention, stage_attention, stages_of
from tutelage.similarity.gram import full_precision


def rtk_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], heard: StageAttention, distance: str = "cosine"
) -> Tensor:
    """Return the loss of feature maps under an attention to the teacher's stages, a scalar.

    >>> left = torch.tensor([1.0, 0.0]).expand(2, 3, 2, 2)
    >>> round(rtk_loss([left], [left, left], stage_attention(torch.zeros(2, 1, 2), [[0, 1]])).item(), 4)
    0.0

    Args:
        student, teacher: feature maps (N, C, H, W) of the same batch, of any widths and sizes.
        heard: what `stage_attention` gives for the stages of `stages_of(teacher)`.
        distance: "cosine", or AFD's "mean"; see `distances`.

    Returns a scalar, float32 for half precision and inside autocast. Raises UserError as `check_maps`.
    """
    shared.check_maps(student, teacher)
    with full_precision(heard.attention.device):
        mine, theirs = energies(student), energies(teacher)
        errors = []
        for (size, layers), w in zip(stages_of(teacher).items(), heard.within, strict=True):
            told = F.normalize(w @ values([theirs[t] for t in layers]), dim=2, eps=1e-12)
            errors.append(distances(values(mine, size), told, distance))
        return (torch.stack(errors, 2) * heard.attention).sum((1, 2)).mean()


class Scores(nn.Module):
    """The trained part: maps of both → a (N, student layers, teacher layers); arguments as of AFD's `Attention`."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int], width: int) -> None:
        super().__init__()
        self.queries, self.keys = shared.Vectors(student, width), shared.Vectors(teacher, width)
        self.p_s, self.p_t = shared.positions(len(student), width), shared.positions(len(teacher), width)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the scores."""
        queries = self.queries(student)
        scores: Tensor = queries @ self.keys(teacher).mT + self.p_s @ self.p_t.mT
        return scores / math.sqrt(queries.shape[-1])


class RTK(Method):
    """RTK-style, reconstructed from the abstract of arXiv 2206.12788; not the authors' equations.

    No published number is claimed. The baseline it has to beat is `AFD` on the ends of the stages. Terms: `rtk`, and
    with `coverage` also `rtk.coverage`.

    Args:
        student_taps, teacher_taps: layers to relate, after ReLU; the teacher's of one size are one stage.
        weight: factor of the loss: for "cosine" start at 6 and sweep 1.5 to 25; for "mean" as AFD's.
        distance: "cosine" or "mean".
        top_k: stages that a student layer keeps, at most their number; None keeps all.
        coverage: share of AFD's loss, with this distance, in [0, 1].
        width: d of queries and keys.
        task_weight: factor of the supervised loss.
    """

    card = Card(
        paper="reconstructed from the abstract of J.-T. Yang et al., Representative Teacher Keys, 2022, 2206.12788",
        tasks="classification",
        needs="taps of feature maps after ReLU, of any width and size but 1×1; batches of 2 or more",
        trains="a query per student layer, a key per teacher layer; AFD's with coverage",
    )

    def __init__(
        self, student_taps: Sequence[str] = STAGES, teacher_taps: Sequence[str] = STAGES, weight: float = 6.0,
        distance: str = "cosine", top_k: int | None = 2, coverage: float = 0.0, width: int = 128,
        task_weight: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        shared.check_settings("RTK", student_taps, teacher_taps, width)
        if not 0 <= coverage <= 1:
            raise UserError(f"coverage is a share in [0, 1], got {coverage}")
        check_distance(distance)
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)
        self.weight, self.distance, self.top_k, self.coverage = weight, distance, top_k, coverage
        self.width, self.task_weight = width, task_weight
        self.scores: nn.Module = shared.Unbuilt()
        self.covering: nn.Module = shared.Unbuilt()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the attention from the shapes of one batch."""
        maps = shared.checked_maps(example, self.student_taps, self.teacher_taps)
        stage_attention(torch.zeros(1, 1, len(maps[1])), list(stages_of(maps[1]).values()), self.top_k)
        student, told = ([x.shape[1] for x in side] for side in maps)
        if self.coverage < 1:
            self.scores = Scores(student, told, self.width)
        if self.coverage:
            self.covering = Attention(student, told, self.width)

    def attend(self, step: Step) -> StageAttention:
        """Return the attention to the teacher's stages of a batch; `attention_use` sums its A up."""
        student, told = shared.maps_of(step, self.student_taps, self.teacher_taps)
        with full_precision(student[0].device):
            return stage_attention(self.scores(student, told), list(stages_of(told).values()), self.top_k)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        maps = shared.maps_of(step, self.student_taps, self.teacher_taps)
        terms = {}
        if self.coverage < 1:
            terms["rtk"] = self.weight * (1 - self.coverage) * rtk_loss(*maps, self.attend(step), self.distance)
        if self.coverage:
            with full_precision(maps[0][0].device):
                attention = self.covering(*maps)
            terms["rtk.coverage"] = self.weight * self.coverage * afd_loss(*maps, attention, self.distance).sum()
        return terms

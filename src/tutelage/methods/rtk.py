"""RTK-style: every student layer attends to the stages of the teacher, each merged into one key.

**Reconstructed from the abstract of arXiv 2206.12788; not the authors' equations; no published
number is claimed.** Source of the idea: J.-T. Yang, S.-C. Kao, S. C.-H. Huang, "Representative
Teacher Keys for Knowledge Distillation Model Compression Based on Attention Mechanism for Image
Classification", 2022. The abstract (there is no official code) improves the best attention-based
method (AFD, as we read it) by similarity and filtering. What follows is our design on AFD's parts.

    q_s = BN(Linear(GAP S_s)),  k_t = BN(Linear(GAP T_t)),  a_{s,t} = (<q_s, k_t> + <p_s, p_t>) / √d
    stage g: the teacher layers of one size H × W
    w_{s,·} = softmax of a_{s,t} over t in g,  e_{s,g} = Σ_{t in g} w_{s,t} a_{s,t}
    A_{s,·} = softmax of e_{s,g} over the stages; the `top_k` largest, scaled to sum 1, the rest 0
    L = weight · mean_batch Σ_s Σ_g A_{s,g} · D(u_{s→g}, n(Σ_{t in g} w_{s,t} v_t))

u and v are the attention vectors of AFD, n scales to length 1, D is `map_distance`. e_{s,g} is the
score of the stage's representative key Σ_{t in g} w_{s,t} k_t. Symbols → arguments: d `qk_dim`,
D `distance`.

Train with "cosine": the softmax runs over stages of different size, and AFD's "mean" favors large
maps whatever they show. `coverage` adds AFD's loss, which makes the student use every layer.

Cost: as AFD without its bilinear layer, and one weighted sum of maps per stage and student layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core import Around, Method, MethodInfo, Step, Teacher
from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._attention import (
    LinearBNList,
    UninitializedModule,
    attended_distances,
    check_features,
    check_layers,
    check_pair_numbers,
    check_settings,
    layer_features,
    layer_positions,
    num_channels,
)
from tutelage.methods._attention_maps import (
    MapDistance,
    Size,
    attention_map,
    attention_vectors,
    map_distance,
    spatial_size,
)
from tutelage.methods._checks import check_choice, check_weights
from tutelage.methods.afd import STAGES, Attention
from tutelage.similarity._checks import as_same_dtype
from tutelage.similarity._products import matmul


class StageAttention(NamedTuple):
    """Attention of student layers to the teacher's stages.

    Attributes:
        layer_weights: for each stage, w (N, student layers, teacher layers of the stage).
        stage_scores: e (N, student layers, stages).
        stage_weights: A (N, student layers, stages), zero for stages beyond the `top_k`.
    """

    layer_weights: list[Tensor]
    stage_scores: Tensor
    stage_weights: Tensor


def rtk_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    scores: Tensor,
    *,
    distance: MapDistance = "cosine",
    top_k: int | None = 2,
) -> Tensor:
    """Return the distance of the student's layers to the teacher's stages, weighted by attention.

    >>> left = torch.tensor([1.0, 0.0]).expand(2, 3, 2, 2)
    >>> round(rtk_loss([left], [left, left], torch.zeros(2, 1, 2), top_k=1).item(), 4)
    0.0

    Args:
        student: feature maps (N, C, H, W) of the student's layers, of any widths and sizes.
        teacher: feature maps of the teacher's layers for the same batch.
        scores: a (N, student layers, teacher layers).
        distance: "cosine", or "mean" as in AFD.
        top_k: stages that each student layer attends to, item by item; None is all.

    Returns:
        A scalar, float32 for half precision and inside autocast.

    Raises:
        UserError: If features, scores or `top_k` do not fit, or a teacher's map is 1×1.
    """
    check_features(student, teacher)
    check_pair_numbers("scores", scores, (len(student[0]), len(student), len(teacher)))
    with full_precision(scores.device):
        stages = stages_of(teacher)
        attention = stage_attention(promote(scores), stages.values(), top_k=top_k)
        student_maps = [attention_map(feature) for feature in student]
        teacher_maps = [attention_map(feature) for feature in teacher]
        errors = []
        for (size, layers), weights in zip(stages.items(), attention.layer_weights, strict=True):
            student_vectors = attention_vectors(student_maps, size)
            # All student layers see the same layers of a stage, but each with its own weights.
            layer_vectors = attention_vectors([teacher_maps[t] for t in layers])
            mean_vectors = matmul(*as_same_dtype(weights, layer_vectors))
            teacher_vectors = F.normalize(mean_vectors, dim=2, eps=1e-12)
            errors.append(map_distance(student_vectors, teacher_vectors, distance=distance))
        weighted = torch.stack(errors, 2) * attention.stage_weights
        return weighted.sum((1, 2)).mean()


def stage_attention(
    scores: Tensor, stages: Collection[Sequence[int]], *, top_k: int | None = None
) -> StageAttention:
    """Return the attention to stages for scores of single layers.

    Of equal stages, the first ones are among the `top_k`.

    >>> stage_attention(torch.zeros(1, 1, 3), [[0, 1], [2]], top_k=1).stage_weights
    tensor([[[1., 0.]]])

    Args:
        scores: a (N, student layers, teacher layers).
        stages: the indices of the teacher layers of each stage.
        top_k: stages that each student layer attends to, item by item; None is all.

    Raises:
        UserError: If `top_k` is not between 1 and the number of stages.
    """
    check_top_k(top_k, len(stages))
    layer_weights = []
    merged_scores = []
    for layers in stages:
        layer_scores = scores[..., list(layers)]
        weights = layer_scores.softmax(-1)
        layer_weights.append(weights)
        merged_scores.append((weights * layer_scores).sum(-1))
    stage_scores = torch.stack(merged_scores, -1)
    stage_weights = stage_scores.softmax(-1)
    if top_k is not None:
        # `topk` does not promise an order of equal scores; a stable sort does.
        order = stage_scores.argsort(dim=-1, descending=True, stable=True)
        mask = torch.zeros_like(stage_weights).scatter(-1, order[..., :top_k], 1.0)
        stage_weights = stage_weights * mask
        stage_weights = stage_weights / stage_weights.sum(-1, keepdim=True)
    return StageAttention(layer_weights, stage_scores, stage_weights)


def stages_of(teacher: Sequence[Tensor]) -> dict[Size, list[int]]:
    """Return the indices of the teacher's layers by size, in order of first appearance.

    >>> stages_of([torch.zeros(1, 2, 8, 8), torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 8, 8)])
    {(8, 8): [0, 2], (4, 4): [1]}
    """
    stages: dict[Size, list[int]] = {}
    for index, feature in enumerate(teacher):
        stages.setdefault(spatial_size(feature), []).append(index)
    return stages


def check_top_k(top_k: int | None, num_stages: int) -> None:
    """Raise UserError unless `top_k` is None or between 1 and the number of stages."""
    if top_k is not None and (not isinstance(top_k, int) or not 1 <= top_k <= num_stages):
        raise UserError(
            f"top_k is 1 to {num_stages}, the number of the teacher's stages, or None; got {top_k}"
        )


class LayerScores(nn.Module):
    """The trained part of RTK: scores of all pairs of a student and a teacher layer.

    Args:
        student_channels: channels of the student's layers.
        teacher_channels: channels of the teacher's layers.
        qk_dim: length of queries and keys.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], qk_dim: int
    ) -> None:
        super().__init__()
        self.queries = LinearBNList(student_channels, qk_dim)
        self.keys = LinearBNList(teacher_channels, qk_dim)
        self.student_positions = layer_positions(len(student_channels), qk_dim)
        self.teacher_positions = layer_positions(len(teacher_channels), qk_dim)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the scores a (N, student layers, teacher layers)."""
        queries = self.queries(student)
        keys = self.keys(teacher)
        positions = matmul(self.student_positions, self.teacher_positions.mT)
        scores = matmul(queries, keys.mT) + positions
        return scores / math.sqrt(queries.shape[-1])


class RTK(Method):
    """RTK-style, reconstructed from the abstract of arXiv 2206.12788; not the authors' equations.

    No published number is claimed. The baseline that it has to beat is `AFD` on the last layers of
    the stages. The terms are `rtk` and, with `coverage`, `rtk/coverage`.

    Args:
        student_layers: the student's layers to relate, after ReLU.
        teacher_layers: the teacher's layers to relate, after ReLU; those of one size are a stage.
        weight: factor of the loss: for "cosine" start at 6 and try 1.5 to 25; for "mean" as AFD's.
        distance: "cosine", or "mean" as in AFD.
        top_k: stages that each student layer attends to, item by item; None is all.
        coverage: share of AFD's loss, with the same distance, in [0, 1].
        qk_dim: length of queries and keys.
        task_weight: factor of the supervised loss.
    """

    info = MethodInfo(
        paper="reconstructed from the abstract of J.-T. Yang et al., Representative Teacher Keys, "
        "2022, arXiv 2206.12788",
        tasks="classification",
        needs="taps of feature maps after ReLU, of any size but 1×1; batches of 2 or more",
        trains="a query per student layer, a key per teacher layer; AFD's with coverage",
    )
    search_space = (Around("weight", 10.0),)

    def __init__(
        self,
        student_layers: Sequence[str] = STAGES,
        teacher_layers: Sequence[str] = STAGES,
        *,
        weight: float = 6.0,
        distance: MapDistance = "cosine",
        top_k: int | None = 2,
        coverage: float = 0.0,
        qk_dim: int = 128,
        task_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_weights("RTK", weight, task_weight)
        check_settings("RTK", student_layers, teacher_layers, qk_dim)
        check_choice("distance", distance, MapDistance)
        if not isinstance(coverage, (int, float)) or not 0 <= coverage <= 1:
            raise UserError(f"coverage is a share in [0, 1], got {coverage!r}")
        self.student_layers = tuple(student_layers)
        self.teacher_layers = tuple(teacher_layers)
        self.weight = weight
        self.distance: MapDistance = distance
        self.top_k = top_k
        self.coverage = coverage
        self.qk_dim = qk_dim
        self.task_weight = task_weight
        self.scores: nn.Module = UninitializedModule()
        self.coverage_attention: nn.Module = UninitializedModule()

    def setup(self, example: Step, teacher: Teacher) -> None:
        """Build the attention from the channels of one batch's features."""
        check_layers(example, self.student_layers, self.teacher_layers)
        student_features = layer_features(example.student, self.student_layers)
        teacher_features = layer_features(example.teacher, self.teacher_layers)
        check_top_k(self.top_k, len(stages_of(teacher_features)))
        student_channels = num_channels(student_features)
        teacher_channels = num_channels(teacher_features)
        # Only the parts that have a term, so that every parameter gets a gradient.
        if self.coverage < 1:
            self.scores = LayerScores(student_channels, teacher_channels, self.qk_dim)
        if self.coverage > 0:
            self.coverage_attention = Attention(student_channels, teacher_channels, self.qk_dim)

    def attend(self, step: Step) -> StageAttention:
        """Return the attention to the teacher's stages, e.g. to see which of them are used."""
        student = layer_features(step.student, self.student_layers)
        teacher = layer_features(step.teacher, self.teacher_layers)
        with full_precision(student[0].device):
            scores = self.scores(student, teacher)
            return stage_attention(scores, stages_of(teacher).values(), top_k=self.top_k)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return the terms that have a weight."""
        student = layer_features(step.student, self.student_layers)
        teacher = layer_features(step.teacher, self.teacher_layers)
        terms = {}
        if self.coverage < 1:
            with full_precision(student[0].device):
                scores = self.scores(student, teacher)
            loss = rtk_loss(student, teacher, scores, distance=self.distance, top_k=self.top_k)
            terms["rtk"] = self.weight * (1 - self.coverage) * loss
        if self.coverage > 0:
            with full_precision(student[0].device):
                attention = self.coverage_attention(student, teacher)
            losses = attended_distances(student, teacher, attention, distance=self.distance)
            terms["rtk/coverage"] = self.weight * self.coverage * losses.sum()
        return terms

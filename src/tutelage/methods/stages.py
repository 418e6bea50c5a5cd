"""Attention to the stages of a teacher: layers of one map size speak with one voice, and few stages are heard.

    w_{s,·} = softmax of a_{s,t} over the layers t of one stage g,  e_{s,g} = Σ_{t in g} w_{s,t} a_{s,t}
    A_{s,·} = softmax of e_{s,g} over the stages; the `top_k` largest kept, the rest 0, sum 1 again

Of our own design, for RTK-style distillation; see `rtk.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.methods.energies import Size, size_of


class StageAttention(NamedTuple):
    """Attention to stages.

    Attributes:
        within: per stage w (N, student layers, teacher layers of the stage).
        logits: e (N, student layers, stages).
        attention: A (N, student layers, stages), filtered.
    """

    within: list[Tensor]
    logits: Tensor
    attention: Tensor


def stages_of(teacher: Sequence[Tensor]) -> dict[Size, list[int]]:
    """Return the teacher's layers of each size, in order of first appearance.

    >>> stages_of([torch.zeros(1, 2, 8, 8), torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 8, 8)])
    {(8, 8): [0, 2], (4, 4): [1]}
    """
    found: dict[Size, list[int]] = {}
    for index, x in enumerate(teacher):
        found.setdefault(size_of(x), []).append(index)
    return found


def stage_attention(scores: Tensor, stages: Sequence[Sequence[int]], top_k: int | None = None) -> StageAttention:
    """Return the attention that scores give; ties keep the stage that comes first.

    >>> stage_attention(torch.zeros(1, 1, 3), [[0, 1], [2]], top_k=1).attention
    tensor([[[1., 0.]]])

    Args:
        scores: a (N, student layers, teacher layers).
        stages: the layers of each stage.
        top_k: stages that a student layer keeps, item by item; None keeps all.

    Raises:
        UserError: `top_k` is below 1 or above the number of stages.
    """
    if top_k is not None and (not isinstance(top_k, int) or not 1 <= top_k <= len(stages)):
        raise UserError(f"top_k is 1 to {len(stages)}, the number of the teacher's stages, or None; got {top_k}")
    parts = [scores[..., list(stage)] for stage in stages]
    within = [part.softmax(-1) for part in parts]
    logits = torch.stack([(w * part).sum(-1) for w, part in zip(within, parts, strict=True)], -1)
    attention = logits.softmax(-1)
    if top_k is not None:
        kept = logits.argsort(dim=-1, descending=True, stable=True)[..., :top_k]
        attention = attention * torch.zeros_like(attention).scatter(-1, kept, 1.0)
        attention = attention / attention.sum(-1, keepdim=True)
    return StageAttention(within, logits, attention)

"""The squared maps of AFD, and how far two of them are apart.

    n(x)  = x / max(‖x‖₂, 1e-12) on the flattened map
    value = n(mean_c f²), for the student pooled to the teacher's size before n

All of it in float32 or better, outside autocast: half precision rounds the 1e-12 to 0, and a dead map to NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.similarity.gram import promote

Size = tuple[int, int]
DISTANCES = ("mean", "cosine")


def energies(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean square over the channels of every map, (N, 1, H, W).

    >>> energies([torch.full((2, 3, 4, 4), 2.0)])[0].shape
    torch.Size([2, 1, 4, 4])
    """
    return [promote(f).square().mean(1, keepdim=True) for f in maps]


def values(energy: Sequence[Tensor], size: Size | None = None) -> Tensor:
    """Return all energies as vectors of unit length, (N, layers, H·W); a map of zeros stays zero.

    >>> values(energies([torch.ones(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)]), (2, 2))[0]
    tensor([[0.5000, 0.5000, 0.5000, 0.5000],
            [0.0000, 0.0000, 0.0000, 0.0000]])

    Args:
        energy: maps (N, 1, H, W), of any sizes.
        size: average them over the cells of this grid first, upwards by repetition; None is for maps of one size.
    """
    pooled = [e if size is None or size_of(e) == size else F.adaptive_avg_pool2d(e, size) for e in energy]
    return F.normalize(torch.stack([p.flatten(1) for p in pooled], 1), dim=2, eps=1e-12)


def distances(student: Tensor, teacher: Tensor, distance: str) -> Tensor:
    """Return D of unit vectors, over the last dimension: ‖u - v‖² / (H·W) for "mean", 1 - <u, v> for "cosine".

    >>> one, other = torch.eye(4)[0], torch.eye(4)[1]
    >>> distances(one, other, "mean").item(), distances(one, other, "cosine").item()
    (0.5, 1.0)
    """
    check_distance(distance)
    return (student - teacher).square().mean(-1) if distance == "mean" else 1.0 - (student * teacher).sum(-1)


def check_distance(distance: str) -> None:
    """Refuse an unknown distance."""
    if distance not in DISTANCES:
        raise UserError(f"distance is one of {DISTANCES}, got {distance!r}")


def size_of(x: Tensor) -> Size:
    """Return (H, W) of a map (..., H, W)."""
    return x.shape[-2], x.shape[-1]

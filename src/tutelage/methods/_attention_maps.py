"""Spatial attention maps of features, and the distance between two of them.

    map(f)  = mean_c f², a map (N, 1, H, W) that tells where a layer is active
    n(x)    = x / max(‖x‖₂, 1e-12) on the flattened map
    vectors = n(map), after pooling the map to a common size

Call these functions outside autocast. They promote half precision to float32, because in half
precision the 1e-12 rounds to 0 and a map of zeros becomes NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.core.precision import promote
from tutelage.methods._checks import check_choice
from tutelage.similarity._products import may_read

LARGE = 1e9  # entries from here on are divided out before they are squared

Size = tuple[int, int]
MapDistance = Literal["mean", "cosine"]


def attention_map(feature: Tensor) -> Tensor:
    """Return the mean square over the channels, up to a factor for items of huge values.

    Maps are compared after they were scaled to length 1. An item whose squares leave the range of
    its dtype is therefore divided by its largest entry first.

    >>> attention_map(torch.full((2, 3, 4, 4), 2.0)).shape
    torch.Size([2, 1, 4, 4])

    Args:
        feature: feature map (N, C, H, W).

    Returns:
        The attention map (N, 1, H, W), at least float32.
    """
    feature = promote(feature)
    attention = feature.square().mean(1, keepdim=True)
    # On an accelerator every feature is treated as if it were huge.
    if may_read(attention) and bool(attention.detach().isfinite().all()):
        return attention
    return (feature * _inverse_of_large(feature)).square().mean(1, keepdim=True)


def attention_vectors(maps: Sequence[Tensor], size: Size | None = None) -> Tensor:
    """Pool attention maps to one size and flatten them to vectors of unit length.

    A map of zeros gives a vector of zeros.

    >>> maps = [attention_map(torch.ones(2, 3, 4, 4)), attention_map(torch.zeros(2, 5, 2, 2))]
    >>> attention_vectors(maps, size=(2, 2))[0]
    tensor([[0.5000, 0.5000, 0.5000, 0.5000],
            [0.0000, 0.0000, 0.0000, 0.0000]])

    Args:
        maps: attention maps (N, 1, H, W), of any sizes if `size` is set, else of one size.
        size: the size (H, W) to pool to; a smaller map is enlarged by repetition.

    Returns:
        The vectors (N, maps, H·W).
    """
    flattened = []
    for attention in maps:
        if size is not None and spatial_size(attention) != size:
            attention = F.adaptive_avg_pool2d(attention, size)
        flattened.append(attention.flatten(1))
    vectors = torch.stack(flattened, 1)
    # Lengths square the entries once more, up to the fourth power of a feature.
    return F.normalize(vectors * _inverse_of_large(vectors, over=(2,)), dim=2, eps=1e-12)


def _inverse_of_large(x: Tensor, over: tuple[int, ...] = (1, 2, 3)) -> Tensor:
    """Return 1 / the largest entry over some dimensions where that is large, else exactly 1."""
    largest = x.detach().abs().amax(over, keepdim=True)
    return largest.masked_fill(largest < LARGE, 1.0).reciprocal()


def map_distance(student: Tensor, teacher: Tensor, *, distance: MapDistance) -> Tensor:
    """Return the distance of unit vectors over the last dimension.

    >>> a, b = torch.eye(4)[0], torch.eye(4)[1]
    >>> map_distance(a, b, distance="mean").item(), map_distance(a, b, distance="cosine").item()
    (0.5, 1.0)

    Args:
        student: vectors (..., H·W) of `attention_vectors`.
        teacher: vectors (..., H·W) that broadcast against the student's.
        distance: "mean" is ‖u - v‖² / (H·W), "cosine" is 1 - <u, v>. They differ by a factor of
            H·W / 2.

    Returns:
        The distances (...).
    """
    check_choice("distance", distance, MapDistance)
    if distance == "mean":
        return (student - teacher).square().mean(-1)
    return 1.0 - (student * teacher).sum(-1)


def spatial_size(feature: Tensor) -> Size:
    """Return (H, W) of a map (..., H, W)."""
    return feature.shape[-2], feature.shape[-1]

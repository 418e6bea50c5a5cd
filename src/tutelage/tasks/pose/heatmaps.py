"""Heat maps from points, and points from heat maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError

CUT = 3  # a Gaussian ends at so many standard deviations


def gaussian_maps(
    points: Tensor,
    size: tuple[int, int],
    stride: tuple[float, float],
    *,
    sigma: float = 2.0,
    official: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return a target map for each joint, and its weight.

    A map is an unnormalized Gaussian of peak 1 around the pixel floor(x / stride + 0.5), cut at 3σ
    in both directions. Where no pixel of it lies on the map, the weight is 0.

    >>> maps, weight = gaussian_maps(torch.tensor([[[4.0, 8.0, 1.0]]]), (4, 4), (4, 4), sigma=1)
    >>> [round(value, 3) for value in maps[0, 0, 2].tolist()], weight
    ([0.607, 1.0, 0.607, 0.135], tensor([[1.]]))

    Args:
        points: (N, K, 3), x, y in pixels of the input, and the weight.
        size: height and width of the maps.
        stride: pixels of the input per pixel of the map, in y and in x.
        sigma: σ, in pixels of the map.
        official: as in OKDHP's official code: the pixel is rounded towards 0 instead of down, and a
            map whose Gaussian ends beside it keeps its weight.

    Returns:
        Maps (N, K, H, W) and weights (N, K), float32 or the precision of the points.

    Raises:
        UserError: If the points have another shape, or sigma or a stride is not positive.
    """
    if points.ndim != 3 or points.shape[-1] != 3 or not points.is_floating_point():
        raise UserError(
            f"points are floats (N, K, 3): x, y and weight, got {tuple(points.shape)} "
            f"{points.dtype}; add the weight of each joint"
        )
    if not min(sigma, *stride) > 0:
        raise UserError(f"sigma and stride are positive, got {sigma} and {stride}")
    height, width = size
    reach = CUT * sigma
    center_x = _center(points[..., 0], stride[1], official)
    center_y = _center(points[..., 1], stride[0], official)
    beyond = 0 if official else 1
    on_map = (
        (center_x - reach < width)
        & (center_y - reach < height)
        & (center_x + reach + 1 >= beyond)
        & (center_y + reach + 1 >= beyond)
    )
    weight = points[..., 2] * on_map
    drawn = weight > 0.5 if official else weight > 0
    columns = _gaussian(center_x, width, sigma, reach)
    rows = _gaussian(center_y, height, sigma, reach) * drawn[..., None]
    return rows[..., :, None] * columns[..., None, :], weight


def _center(coordinates: Tensor, stride: float, official: bool) -> Tensor:
    # Of a joint without a label there may be no coordinates; its weight is 0.
    shifted = torch.nan_to_num(coordinates) / stride + 0.5
    return shifted.trunc() if official else shifted.floor()


def _gaussian(center: Tensor, length: int, sigma: float, reach: float) -> Tensor:
    """Return a Gaussian along one axis, (N, K, length)."""
    distance = torch.arange(length, device=center.device, dtype=center.dtype) - center[..., None]
    values = torch.exp(-distance.square() / (2 * sigma**2))
    return values * (distance.abs() <= reach)


def decode(maps: Tensor, *, refine: bool = True) -> tuple[Tensor, Tensor]:
    """Return the points of the largest values, in pixels of the maps.

    A quarter of a pixel is added towards the larger neighbor on each axis, where 1 < x < W - 1 and
    1 < y < H - 1. The point is (0, 0) if the largest value is not positive.

    >>> maps = torch.zeros(1, 1, 5, 6)
    >>> maps[0, 0, 2, 3], maps[0, 0, 2, 4] = 1.0, 0.5
    >>> decode(maps)[0]
    tensor([[[3.2500, 2.0000]]])

    Args:
        maps: (N, K, h, w).
        refine: whether to add the quarter.

    Returns:
        Points (N, K, 2) as x, y, and the largest values (N, K).

    Raises:
        UserError: If the maps have another shape or are no floats.
    """
    if maps.ndim != 4 or not maps.is_floating_point() or 0 in maps.shape[-2:]:
        raise UserError(
            f"maps are floats (N, K, h, w), got {tuple(maps.shape)} {maps.dtype}; of several "
            "stacks give the last, of one image a batch of one"
        )
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2)
    scores, index = flat.max(-1)
    x = index % width
    y = index.div(width, rounding_mode="floor")
    points = torch.stack([x, y], -1).to(maps.dtype)
    points = points * (scores > 0)[..., None]
    if not refine:
        return points, scores
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1) & (scores > 0)
    # Neighbors are read at clamped places; those at the edge are not used.
    left_right = _slope(flat, index, 1)
    up_down = _slope(flat, index, width)
    quarter = 0.25 * torch.stack([left_right, up_down], -1).sign()
    return points + quarter * inside[..., None], scores


def _slope(flat: Tensor, index: Tensor, step: int) -> Tensor:
    """Return the difference of the two neighbors of each place."""
    last = flat.shape[-1] - 1
    after = flat.gather(-1, (index + step).clamp(max=last)[..., None])
    before = flat.gather(-1, (index - step).clamp(min=0)[..., None])
    return (after - before)[..., 0]


def stride_of(inputs: Tensor, maps: Tensor) -> tuple[float, float]:
    """Return the pixels of the inputs (N, C, H, W) per pixel of the maps, in y and in x.

    Raises:
        UserError: If it is not the same in both directions.
    """
    height, width = inputs.shape[-2:]
    rows, columns = maps.shape[-2:]
    stride = (height / rows, width / columns)
    if stride[0] != stride[1]:
        raise UserError(
            f"the network makes maps of {rows} × {columns} from images of {height} × {width}, a "
            f"stride of {stride[0]:g} in y and {stride[1]:g} in x; take images whose sides are "
            "multiples of one stride"
        )
    return stride


def flip_maps(maps: Tensor, pairs: Tensor, *, shift: bool = True) -> Tensor:
    """Return the maps of mirrored images as maps of the images themselves.

    >>> maps = torch.arange(6.0).view(1, 2, 1, 3)
    >>> flip_maps(maps, torch.tensor([1, 0]), shift=False)[0, 0]
    tensor([[5., 4., 3.]])

    Args:
        maps: (..., K, h, w).
        pairs: (K,), which joint each one is in a mirror.
        shift: move them by a pixel to the right, as official codes do, since the pixels of a map do
            not lie symmetrically in the image.

    Raises:
        UserError: If there is not one partner for each joint.
    """
    if pairs.shape != maps.shape[-3:-2]:
        raise UserError(
            f"pairs are one for each joint, but maps {tuple(maps.shape)} have other joints than "
            f"pairs {tuple(pairs.shape)}; see flip_order"
        )
    mirrored = maps.flip(-1).index_select(-3, pairs.to(maps.device))
    if shift:
        mirrored = torch.cat([mirrored[..., :1], mirrored[..., :-1]], -1)
    return mirrored


def averaged(output: Any, mirrored: Any, order: Tensor) -> Any:
    """Return the mean of an output and that of the mirrored images.

    Args:
        output: maps (..., K, h, w), or nested mappings of them.
        mirrored: the same for the mirrored images.
        order: (K,), which joint each one is in a mirror.
    """
    if isinstance(output, Tensor):
        return (output + flip_maps(mirrored, order)) / 2
    return {name: averaged(value, mirrored[name], order) for name, value in output.items()}

"""Affine maps of points and images.

A point is in pixels, the center of the first one at 0. An affine map (2, 3) takes (x, y, 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def region_affine(regions: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maps that bring regions of images to inputs of this size.

    >>> region_affine(torch.tensor([0.0, 0.0, 8.0, 4.0]), (8, 16))
    tensor([[2.0000, 0.0000, 0.5000],
            [0.0000, 2.0000, 0.5000]])

    Args:
        regions: (..., 4), left, top, width and height; the left edge of an image is 0.
        size: height and width.

    Returns:
        (..., 2, 3)
    """
    height, width = size
    left, top, region_width, region_height = regions.unbind(-1)
    scale_x = width / region_width
    scale_y = height / region_height
    zero = torch.zeros_like(scale_x)
    # The center of the first pixel lies half a pixel from the edge.
    row_x = torch.stack([scale_x, zero, (0.5 - left) * scale_x - 0.5], -1)
    row_y = torch.stack([zero, scale_y, (0.5 - top) * scale_y - 0.5], -1)
    return torch.stack([row_x, row_y], -2)


def apply_affine(affine: Tensor, points: Tensor) -> Tensor:
    """Return points (..., K, 2), moved by maps (..., 2, 3)."""
    return points @ affine[..., :2].mT + affine[..., None, :, 2]


def compose_affine(second: Tensor, first: Tensor) -> Tensor:
    """Return the map that does the first one, then the second one."""
    linear = second[..., :2] @ first[..., :2]
    offset = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return torch.cat([linear, offset], -1)


def invert_affine(affine: Tensor) -> Tensor:
    """Return the map in the other direction.

    >>> there = torch.tensor([[2.0, 0.0, 1.0], [0.0, 4.0, 3.0]])
    >>> compose_affine(invert_affine(there), there)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    inverse = torch.linalg.inv(affine[..., :2])
    return torch.cat([inverse, -inverse @ affine[..., 2:]], -1)


def turn_and_scale(
    size: tuple[int, int], degrees: float, scale: float, shift: tuple[float, float]
) -> Tensor:
    """Return the map that turns and scales around the middle of an input, then shifts it.

    Args:
        size: height and width.
        degrees: clockwise, as y points down.
        scale: above 1 enlarges.
        shift: in x and y, in pixels.
    """
    height, width = size
    center = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    angle = math.radians(degrees)
    linear = scale * torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    offset = center + torch.tensor(shift) - linear @ center
    return torch.cat([linear, offset[:, None]], -1)


def mirror_affine(width: int) -> Tensor:
    """Return the map that mirrors left and right."""
    return torch.tensor([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]])


def warp(image: Tensor, affine: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image moved by a map, bilinearly; what lies beside the image is black.

    An image that becomes smaller by more than half is blurred first, as antialiasing does.

    Args:
        image: (C, H, W) float.
        affine: (2, 3), from its pixels to those of the result.
        size: height and width of the result.
    """
    height, width = size
    if tuple(image.shape[-2:]) == size and torch.equal(affine, torch.eye(2, 3)):
        return image
    image, affine = _reduced(image, affine)
    back = invert_affine(affine)
    rows, columns = image.shape[-2:]
    # grid_sample counts from -1, the center of the first pixel, to 1, that of the last one.
    to_unit = torch.tensor([2 / max(columns - 1, 1), 2 / max(rows - 1, 1)])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y], -1).float().flatten(0, 1)
    grid = apply_affine(back, pixels) * to_unit - 1
    grid = grid.view(1, height, width, 2)
    return F.grid_sample(image[None], grid, mode="bilinear", align_corners=True)[0]


def _reduced(image: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Return an image of about the resolution of the result, and the map from it."""
    scale = float(torch.linalg.det(affine[:, :2]).abs().sqrt())
    if scale >= 0.5:
        return image, affine
    rows, columns = (max(2, round(side * scale)) for side in image.shape[-2:])
    small = F.interpolate(
        image[None], (rows, columns), mode="bilinear", antialias=True, align_corners=False
    )[0]
    whole = torch.tensor([0.0, 0.0, image.shape[-1], image.shape[-2]])
    return small, compose_affine(affine, invert_affine(region_affine(whole, (rows, columns))))

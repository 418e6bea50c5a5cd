"""Min-max normalization of maps, to the range [0, 1] that SSIM's constants are made for.

    ψ(a) = (a - lowest) / (highest - lowest + 1e-6)

It cancels the scale of the student's channels, so the gradient grows as 1 / range.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_floating
from tutelage.similarity._checks import as_same_dtype, check_tensors

Normalize = Literal["channel", "tensor", "teacher", "none"]

EPSILON = 1e-6

# A student's channel whose range is a smaller share of the median is warned about.
FLAT = 1e-4


def normalize_maps(
    student: Tensor,
    teacher: Tensor,
    *,
    normalize: Normalize = "channel",
    detach_range: bool = False,
    min_range: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's maps, normalized.

    >>> student = torch.tensor([[[[2.0, 4.0]]]])
    >>> teacher = torch.tensor([[[[0.0, 9.0]]]])
    >>> [maps.flatten().round(decimals=4).tolist() for maps in normalize_maps(student, teacher)]
    [[0.0, 1.0], [0.0, 1.0]]

    Args:
        student: maps (B, C, H, W).
        teacher: maps of the same shape.
        normalize: over what the lowest and highest value are taken. `"channel"`: each image,
            channel and side, so that all channels count alike. `"tensor"`: each image and side, so
            that channels count by their range. `"teacher"`: the teacher's per channel, for both
            sides. `"none"`: maps stay as they are.
        detach_range: no gradient through the student's lowest and highest value.
        min_range: floor of the student's ranges as a share of their median, which bounds the
            gradient; 0 is none.

    Returns:
        Two maps (B, C, H, W); float32 for half precision and inside autocast.
    """
    with full_precision(student.device):
        s, t = as_same_dtype(student, teacher)
        if normalize == "none":
            return s, t
        dims = (1, 2, 3) if normalize == "tensor" else (2, 3)
        lowest_t, range_t = _lowest_and_range(t, dims)
        if normalize == "teacher":
            lowest_s, range_s = lowest_t, range_t
        else:
            lowest_s, range_s = _lowest_and_range(s, dims)
        if detach_range:
            lowest_s = lowest_s.detach()
            range_s = range_s.detach()
        if min_range:
            range_s = torch.maximum(range_s, min_range * range_s.detach().median())
        return (s - lowest_s) / (range_s + EPSILON), (t - lowest_t) / (range_t + EPSILON)


def channel_ranges(maps: Tensor) -> Tensor:
    """Return highest minus lowest value of every image and channel, (B, C, 1, 1)."""
    _, ranges = _lowest_and_range(promote(maps.detach()), (2, 3))
    return ranges


def check_normalization(normalize: Normalize, max_val: float | None, min_range: float) -> None:
    """Raise for options that are none of those of `ssim_loss`.

    Raises:
        UserError: The message names the option.
    """
    check_choice("normalize", normalize, Normalize)
    if normalize == "none" and max_val is None:
        raise UserError(
            "without normalization SSIM needs L, the range of the maps' values; "
            "give max_val (normalize='none')"
        )
    is_share = isinstance(min_range, (int, float)) and 0 <= min_range <= 1
    is_positive = max_val is None or (isinstance(max_val, (int, float)) and 0 < max_val < math.inf)
    if not is_share or not is_positive:
        raise UserError(
            f"max_val must be positive and min_range within [0, 1], got {max_val} and {min_range}"
        )


def check_maps(student: Tensor, teacher: Tensor, normalize: Normalize) -> None:
    """Raise for maps that cannot be compared position by position.

    Raises:
        UserError: If they are not maps (B, C, H, W) of one shape and of floating dtypes, or have a
            single position.
    """
    check_tensors("SSIM", student, teacher)
    shapes = f"{tuple(student.shape)} from the student and {tuple(teacher.shape)} from the teacher"
    if student.ndim != 4 or teacher.ndim != 4 or not (student.numel() and teacher.numel()):
        raise UserError(f"SSIM compares maps (B, C, H, W), got {shapes}; tap convolutional maps")
    if student.shape[:2] != teacher.shape[:2]:
        raise UserError(
            f"SSIM needs the same images and channels, got {shapes}; "
            "set adapter='auto' for other widths"
        )
    if student.shape[2:] != teacher.shape[2:]:
        raise UserError(
            f"SSIM needs maps of one size, got {shapes}; feed the teacher the student's "
            "transformed batch, or set resize='student'"
        )
    check_floating("SSIM needs floating-point maps", student, teacher)
    if student.shape[2:].numel() == 1 and normalize in ("channel", "teacher"):
        raise UserError(
            f"a 1×1 map carries no structure under normalize={normalize!r}; drop this level"
        )


def range_warnings(
    student: Tensor, teacher: Tensor, *, normalize: Normalize, min_range: float
) -> list[str]:
    """Return what is wrong with the ranges of two maps, one sentence each.

    Args:
        student: maps (B, C, H, W).
        teacher: maps of the same shape.
        normalize: as of `normalize_maps`.
        min_range: as of `normalize_maps`.
    """
    messages = []
    ranges = channel_ranges(student)
    num_flat = int((ranges < FLAT * ranges.median()).sum())
    own_range = normalize in ("channel", "tensor")
    if num_flat and own_range and not min_range:
        messages.append(
            f"{num_flat} of {ranges.numel()} channels of the student's maps vary less than "
            f"{FLAT:g} of the median, and the gradient grows as 1 / range; "
            "set min_range=0.1 to bound it"
        )
    if normalize == "none" and bool((student < 0).any() | (teacher < 0).any()):
        messages.append(
            "without normalization negative values reward maps that differ; set normalize='channel'"
        )
    return messages


def _lowest_and_range(maps: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    lowest = maps.amin(dims, keepdim=True)
    return lowest, maps.amax(dims, keepdim=True) - lowest

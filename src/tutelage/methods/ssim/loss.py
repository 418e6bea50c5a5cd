"""The loss between two maps: normalized, compared window by window, and averaged."""

from __future__ import annotations

import warnings
from functools import partial

from torch import Tensor

from tutelage.methods.ssim.index import Exponents, border_for, check_window, ssim_index
from tutelage.methods.ssim.normalization import (
    EPSILON,
    Normalize,
    channel_ranges,
    check_maps,
    check_normalization,
    normalize_maps,
)
from tutelage.methods.ssim.pieces import sum_in_pieces
from tutelage.methods.ssim.window import Border

SMALL = (
    "is too small for a reflected border, which becomes border='renorm': windows are cut at the "
    "edge and renormalized"
)


def ssim_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    max_val: float | None = None,
    border: Border = "reflect",
    exponents: Exponents = (1.0, 1.0, 1.0),
    normalize: Normalize = "channel",
    detach_range: bool = False,
    min_range: float = 0.0,
    ignore_dead: bool = False,
) -> Tensor:
    """Return the mean of (1 - SSIM) / 2, clamped to [0, 1], over images, channels and positions.

    >>> import torch
    >>> maps = torch.arange(144.0).view(1, 1, 12, 12).sin()
    >>> round(ssim_loss(maps, 5 * maps + 2).item(), 4), ssim_loss(maps, -maps).item() > 0.9
    (0.0, True)

    Args:
        student: maps (B, C, H, W) of any floating dtype.
        teacher: maps of the same shape.
        window_size: side of the Gaussian window, odd.
        sigma: standard deviation of the window's weights.
        k1: of the constant C1 = (k1 · max_val)².
        k2: of the constant C2 = (k2 · max_val)².
        max_val: L, the range of the values; None is 1, which normalization gives. It must be given
            with `normalize="none"`.
        border: `"reflect"`, `"valid"` (whole windows only), or `"renorm"` (windows cut at the
            border and renormalized, for maps of any size); see `ssim_index`.
        exponents: of luminance, contrast and structure; sign(x) |x|^e where e is neither 0 nor 1.
        normalize: over what the lowest and highest value are taken, `"channel"`, `"tensor"`,
            `"teacher"` or `"none"`; see `normalize_maps`.
        detach_range: no gradient through the student's lowest and highest value.
        min_range: floor of the student's ranges as a share of their median, which bounds the
            gradient; 0 is none.
        ignore_dead: leave out channels that are constant in the teacher's image: they cost ½ each
            and have nothing to teach.

    Returns:
        A scalar, float32 for half precision and inside autocast. A warning says that a small map
        takes the border `"renorm"`.

    Raises:
        UserError: If the maps do not fit each other, the window or the normalization, or if an
            option is none of the choices.
    """
    check_window(window_size, sigma, border, exponents, (k1, k2))
    check_normalization(normalize, max_val, min_range)
    check_maps(student, teacher, normalize)
    fitting_border = border_for(student.shape[2:], window_size, border)
    if fitting_border != border:
        warnings.warn(f"a map of {student.shape[2]}×{student.shape[3]} {SMALL}", stacklevel=2)
    normalized = partial(
        normalize_maps, normalize=normalize, detach_range=detach_range, min_range=min_range
    )
    index = partial(
        ssim_index,
        window_size=window_size,
        sigma=sigma,
        k1=k1,
        k2=k2,
        max_val=1.0 if max_val is None else max_val,
        border=fitting_border,
        exponents=exponents,
    )
    # Which channels count, (B, C, 1, 1).
    alive = channel_ranges(teacher) >= EPSILON if ignore_dead else None
    by_channel = normalize != "tensor" and not min_range
    if not by_channel:  # the ranges depend on other channels, which a piece does not have
        student, teacher = normalized(student, teacher)

    def sum_of_errors(s: Tensor, t: Tensor, channels: slice) -> Tensor:
        if by_channel:
            s, t = normalized(s, t)
        errors = (0.5 - 0.5 * index(s, t)).clamp(0, 1)
        return (errors if alive is None else errors * alive[:, channels]).sum()

    total = sum_in_pieces(sum_of_errors, student, teacher)
    height, width = student.shape[2:]
    margin = window_size - 1 if fitting_border == "valid" else 0
    positions = (height - margin) * (width - margin)
    if alive is None:
        return total / (student.shape[0] * student.shape[1] * positions)
    return total / (alive.sum() * positions).clamp_min(1)

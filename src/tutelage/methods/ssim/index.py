"""The structural similarity index of two maps, and means over Gaussian windows.

    μ_s, μ_t = E[s], E[t]      v = E[s² + t²] - μ_s² - μ_t²      c = E[s t] - μ_s μ_t
    SSIM = (2 μ_s μ_t + C1) (2 c + C2) / ((μ_s² + μ_t² + C1) (v + C2))

E: mean over a window; C1 = (k1 L)², C2 = (k2 L)², L the range of the values. It is the product of
luminance, contrast and structure, with the standard deviations σ_s and σ_t:

    (2 μ_s μ_t + C1) / (μ_s² + μ_t² + C1)
    (2 σ_s σ_t + C2) / (v + C2)
    (c + C2/2) / (σ_s σ_t + C2/2)

Variances are differences of squares: they need float32 at least, outside autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice
from tutelage.methods.ssim.window import Border, GaussianWindow
from tutelage.similarity._checks import as_same_dtype

Exponents = tuple[float, float, float]

# Added to a variance before its root, whose slope at 0 is infinite.
ROOT_EPSILON = 1e-12


def ssim_index(
    student: Tensor,
    teacher: Tensor,
    *,
    window_size: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    max_val: float = 1.0,
    border: Border = "reflect",
    exponents: Exponents = (1.0, 1.0, 1.0),
) -> Tensor:
    """Return SSIM at every position of two maps.

    >>> import torch
    >>> maps = torch.eye(12).view(1, 1, 12, 12)
    >>> round(ssim_index(maps, maps).min().item(), 4)
    1.0

    Args:
        student: maps (B, C, H, W).
        teacher: maps of the same shape.
        window_size: side of the window, odd.
        sigma: standard deviation of the window's Gaussian weights.
        k1: of the constant C1 = (k1 · max_val)².
        k2: of the constant C2 = (k2 · max_val)².
        max_val: L, the range of the values.
        border: `"reflect"` without repeating the edge, `"valid"` (whole windows only), or
            `"renorm"`: windows are cut at the border and their weights sum to 1 again.
        exponents: of luminance, contrast and structure; sign(x) |x|^e where e is neither 0 nor 1.

    Returns:
        (B, C, H, W), smaller by window_size - 1 if `"valid"`; float32 for half precision and inside
        autocast.

    Raises:
        UserError: If an option is wrong, or a map is smaller than the border rule needs.
    """
    check_window(window_size, sigma, border, exponents, (k1, k2))
    _check_size(student.shape[2:], window_size, border)
    with full_precision(student.device):
        s, t = as_same_dtype(student, teacher)
        window = GaussianWindow(s, window_size, sigma, border)
        c1 = (k1 * max_val) ** 2
        c2 = (k2 * max_val) ** 2
        return _index(s, t, window, c1, c2, exponents)


def border_for(size: Sequence[int], window_size: int, border: Border) -> Border:
    """Return the border rule for maps of a size: `"reflect"` becomes `"renorm"` on small ones.

    >>> border_for((4, 4), 11, "reflect"), border_for((6, 6), 11, "reflect")
    ('renorm', 'reflect')

    Args:
        size: height and width of the maps.
        window_size: side of the window.
        border: the rule for maps that are large enough.

    Raises:
        UserError: If the maps are too small for a border that stays `"valid"`.
    """
    if border == "reflect" and min(size) <= window_size // 2:
        return "renorm"
    _check_size(size, window_size, border)
    return border


def check_window(
    window_size: int,
    sigma: float,
    border: Border,
    exponents: Exponents,
    constants: tuple[float, float],
) -> None:
    """Raise for options that are none of those of `ssim_index`.

    Raises:
        UserError: The message names the option.
    """
    is_odd = isinstance(window_size, int) and window_size > 0 and window_size % 2 == 1
    if not is_odd or not _is_positive(sigma):
        raise UserError(
            f"SSIM needs an odd window_size and sigma > 0, got {window_size} and {sigma}; "
            "11 and 1.5 are usual"
        )
    check_choice("border", border, Border)
    is_list = isinstance(exponents, (list, tuple)) and len(exponents) == 3
    are_numbers = is_list and all(isinstance(e, (int, float)) for e in exponents)
    if not are_numbers or not any(exponents) or not all(map(math.isfinite, exponents)):
        raise UserError(
            f"exponents are three, of luminance, contrast and structure, not all 0, got {exponents}"
        )
    for value in constants:
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UserError(f"k1 and k2 of SSIM are finite numbers from 0 on, got {constants}")


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


def _check_size(size: Sequence[int], window_size: int, border: Border) -> None:
    smallest = {"reflect": window_size // 2 + 1, "valid": window_size, "renorm": 1}
    if min(size) < smallest[border]:
        height, width = size
        raise UserError(
            f"a map of {height}×{width} is too small for a window of {window_size} under "
            f"border={border!r}; set border='renorm' or a smaller window_size"
        )


def _index(
    s: Tensor,
    t: Tensor,
    window: GaussianWindow,
    c1: float,
    c2: float,
    exponents: Exponents,
) -> Tensor:
    luminance_exponent, contrast_exponent, structure_exponent = exponents
    # An offset changes no variance, but without it E[s²] - μ² loses fewer digits.
    offset_s = s.detach().mean((2, 3), keepdim=True)
    offset_t = t.detach().mean((2, 3), keepdim=True)
    s = s - offset_s
    t = t - offset_t
    local_s = window.mean(s)
    local_t = window.mean(t)
    mean_s = local_s + offset_s
    mean_t = local_t + offset_t
    luminance = (2 * mean_s * mean_t + c1) / (mean_s.square() + mean_t.square() + c1)
    if contrast_exponent == structure_exponent == 0:
        return _power(luminance, luminance_exponent)
    if contrast_exponent == structure_exponent == 1:
        # In their product the standard deviations cancel, and with them the roots.
        squares = window.mean(s.square() + t.square())
        variance = (squares - local_s.square() - local_t.square()).clamp_min(0)
        covariance = window.mean(s * t) - local_s * local_t
        contrast_structure = (2 * covariance + c2) / (variance + c2)
        return _power(luminance, luminance_exponent) * contrast_structure
    variance_s = (window.mean(s.square()) - local_s.square()).clamp_min(0)
    variance_t = (window.mean(t.square()) - local_t.square()).clamp_min(0)
    deviations = (variance_s + ROOT_EPSILON).sqrt() * (variance_t + ROOT_EPSILON).sqrt()
    contrast = (2 * deviations + c2) / (variance_s + variance_t + c2)
    covariance = window.mean(s * t) - local_s * local_t
    structure = (covariance + c2 / 2) / (deviations + c2 / 2)
    return (
        _power(luminance, luminance_exponent)
        * _power(contrast, contrast_exponent)
        * _power(structure, structure_exponent)
    )


def _power(x: Tensor, exponent: float) -> Tensor:
    """Return sign(x) |x|^exponent, whose slope at 0 stays finite."""
    if exponent == 0:
        return x.new_ones(x.shape)
    if exponent == 1:
        return x
    return x.sign() * x.abs().clamp_min(ROOT_EPSILON).pow(exponent)

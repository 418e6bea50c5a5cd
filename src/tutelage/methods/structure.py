"""Local structure of two maps: Gaussian windows, and SSIM with its three factors.

    μ_s, μ_t = E[s], E[t]      v = E[s² + t²] - μ_s² - μ_t²      c = E[s t] - μ_s μ_t      E: mean over a window
    SSIM = (2 μ_s μ_t + C1) (2 c + C2) / ((μ_s² + μ_t² + C1) (v + C2)),      C1 = (k1 L)², C2 = (k2 L)²

which is luminance · contrast · structure: (2 μ_s μ_t + C1) / (μ_s² + μ_t² + C1), (2 σ_s σ_t + C2) / (v + C2) and
(c + C2/2) / (σ_s σ_t + C2/2). Variances are differences of squares: float32 at least, outside autocast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.methods.windows import BORDERS, Windows
from tutelage.similarity.gram import full_precision, promote

ROOT = 1e-12  # keeps the slope of a standard deviation finite at 0


@dataclass(frozen=True)
class Structure:
    """How SSIM looks at maps.

    >>> Structure().fitting((4, 4)).border, Structure().fitting((6, 6)).border
    ('renorm', 'reflect')

    Attributes:
        window, sigma: side of the window, odd, and the standard deviation of its Gaussian weights.
        border: `"reflect"` (no edge repeat), `"valid"` (whole windows only), or `"renorm"`: windows are cut at the
            border and their weights sum to 1 again, for maps of any size.
        exponents: of luminance, contrast and structure; sign(x) |x|^e where e is neither 0 nor 1.
        k1, k2: of the constants C1 and C2.
    """

    window: int = 11
    sigma: float = 1.5
    border: str = "reflect"
    exponents: tuple[float, float, float] = (1.0, 1.0, 1.0)
    k1: float = 0.01
    k2: float = 0.03

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0 or not self.sigma > 0:
            raise UserError(
                f"SSIM needs an odd window and sigma > 0, got {self.window} and {self.sigma}; 11 and 1.5 are usual"
            )
        if self.border not in BORDERS:
            raise UserError(f"border is one of {BORDERS}, got {self.border!r}; 'renorm' takes maps of any size")
        if len(self.exponents) != 3 or not any(self.exponents):
            raise UserError(
                f"exponents are three, of luminance, contrast and structure, not all 0, got {self.exponents}"
            )

    def fitting(self, size: tuple[int, ...]) -> Structure:
        """Return what suits maps of this size: `"reflect"` needs more than half a window, and becomes `"renorm"`."""
        small = min(size) <= self.window // 2
        return replace(self, border="renorm") if small and self.border == "reflect" else self

    def similarity(self, s: Tensor, t: Tensor, span: float = 1.0) -> Tensor:
        """Return SSIM at every position of two maps (B, C, H, W) of one shape.

        >>> maps = torch.eye(12).view(1, 1, 12, 12)
        >>> round(Structure().similarity(maps, maps).min().item(), 4)
        1.0

        Args:
            s, t: the maps.
            span: L, the range of their values.

        Returns:
            (B, C, H, W), smaller by window - 1 if `"valid"`; float32 for half precision and inside autocast.

        Raises:
            UserError: a map is smaller than the border asks for.
        """
        least = {"reflect": self.window // 2 + 1, "valid": self.window, "renorm": 1}[self.border]
        if min(s.shape[2:]) < least:
            raise UserError(
                f"a map of {s.shape[2]}×{s.shape[3]} is too small for a window of {self.window} under "
                f"border={self.border!r}; set border='renorm' or a smaller window"
            )
        with full_precision(s.device):
            return self._similarity(promote(s), promote(t), (self.k1 * span) ** 2, (self.k2 * span) ** 2)

    def _similarity(self, s: Tensor, t: Tensor, c1: float, c2: float) -> Tensor:
        alpha, beta, gamma = self.exponents
        mean = Windows(s, self.window, self.sigma, self.border).mean
        middle_s, middle_t = (x.detach().mean((2, 3), keepdim=True) for x in (s, t))
        s, t = s - middle_s, t - middle_t  # variances do not see it, and keep their digits
        near_s, near_t = mean(s), mean(t)
        mean_s, mean_t = near_s + middle_s, near_t + middle_t
        luminance = (2 * mean_s * mean_t + c1) / (mean_s.square() + mean_t.square() + c1)
        if beta == gamma == 0:
            return _power(luminance, alpha)
        if beta == gamma == 1:  # their product needs no standard deviation
            v = (mean(s.square() + t.square()) - near_s.square() - near_t.square()).clamp_min(0)
            return _power(luminance, alpha) * ((2 * (mean(s * t) - near_s * near_t) + c2) / (v + c2))
        v_s, v_t = ((mean(x.square()) - near.square()).clamp_min(0) for x, near in ((s, near_s), (t, near_t)))
        deviations = (v_s + ROOT).sqrt() * (v_t + ROOT).sqrt()
        contrast = (2 * deviations + c2) / (v_s + v_t + c2)
        structure = (mean(s * t) - near_s * near_t + c2 / 2) / (deviations + c2 / 2)
        return _power(luminance, alpha) * _power(contrast, beta) * _power(structure, gamma)


def _power(x: Tensor, exponent: float) -> Tensor:
    """Return sign(x) |x|^exponent, whose slope at 0 stays finite."""
    if exponent in (0, 1):
        return x if exponent else torch.ones_like(x)
    return x.sign() * x.abs().clamp_min(ROOT).pow(exponent)

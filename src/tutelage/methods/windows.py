"""Means over Gaussian windows, with a rule for the border: band matrices for short sides, else convolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BORDERS = ("reflect", "valid", "renorm")
LONGEST = 160  # a longer side is convolved on a CPU: there its band matrix, mostly zeros, costs more


class Windows:
    """Windows on maps of one size.

    >>> Windows(torch.ones(1, 1, 2, 3), 11, 1.5, "renorm").mean(torch.ones(1, 1, 2, 3)).round(decimals=4).tolist()
    [[[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]]

    Args:
        like: maps (B, C, H, W) of the size, dtype (float32 or float64) and device to come.
        window: odd side of the window.
        sigma: standard deviation of the weights, a product of two Gaussians with sum 1.
        border: `"reflect"` without repeating the edge, `"valid"`: whole windows only, or `"renorm"`: windows are cut
            at the border and their weights sum to 1 again.
    """

    def __init__(self, like: Tensor, window: int, sigma: float, border: str) -> None:
        self.half, self.border, self.sizes = window // 2, border, like.shape[2:]
        offsets = torch.arange(-self.half, self.half + 1, device=like.device)
        weights = (-0.5 * (offsets.to(like.dtype) / sigma).square()).exp()
        self.weights = weights / weights.sum()
        self.bands: list[Tensor] = []
        if like.device.type != "cpu" or max(self.sizes) <= LONGEST:
            self.bands = [self._band(n, offsets) for n in self.sizes]

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean around every position, (B, C, H, W), smaller by window - 1 if `"valid"`; outside autocast."""
        if self.bands:
            rows, columns = self.bands
            return rows @ (x @ columns.mT)
        return self._convolved(x)

    def _band(self, n: int, offsets: Tensor) -> Tensor:
        """Return the matrix that takes the means along an axis of n positions; the border's rule is in it."""
        at = torch.arange(n, device=offsets.device).unsqueeze(1) + offsets
        weights = self.weights.expand(at.shape)
        if self.border == "valid":
            at, weights = at[self.half : n - self.half], weights[self.half : n - self.half]
        if self.border == "reflect":
            at = n - 1 - (n - 1 - at.abs()).abs()
        if self.border == "renorm":
            weights = weights * ((at >= 0) & (at < n))
            at, weights = at.clamp(0, n - 1), weights / weights.sum(1, keepdim=True)
        return weights.new_zeros(len(at), n).scatter_add(1, at, weights)

    def _convolved(self, x: Tensor) -> Tensor:
        """Return the same by two convolutions of every channel."""
        half, weights, channels = self.half, self.weights, x.shape[1]
        padding = half if self.border == "renorm" else 0
        if self.border == "reflect":
            x = F.pad(x, (half,) * 4, mode="reflect")
        x = F.conv2d(x, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), padding=(padding, 0), groups=channels)
        x = F.conv2d(x, weights.expand(channels, 1, 1, -1), padding=(0, padding), groups=channels)
        if self.border == "renorm":
            kernel = weights.view(1, 1, -1)
            rows, columns = (F.conv1d(x.new_ones(1, n), kernel, padding=half) for n in self.sizes)
            x = x / (rows.mT * columns)
        return x

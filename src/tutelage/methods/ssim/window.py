"""Means of maps over Gaussian windows, as products with band matrices."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function

from tutelage.core.precision import full_precision

Border = Literal["reflect", "valid", "renorm"]

# Rows of a block on a CPU, of which a product skips the zeros beside the band.
BLOCK = 64


class Block(NamedTuple):
    """A piece of a band matrix: the rows and columns that it holds, and its values."""

    rows: slice
    columns: slice
    values: Tensor


class Band(NamedTuple):
    """A band matrix in blocks of rows, and its transpose."""

    blocks: list[Block]
    transposed: list[Block]


class GaussianWindow:
    """A Gaussian window on maps of one size.

    The mean around every position is a product with two band matrices, one for each side of the
    map, which hold the rule for the border.

    >>> maps = torch.ones(1, 1, 2, 3)
    >>> GaussianWindow(maps, 11, 1.5, "renorm").mean(maps).round(decimals=4).tolist()
    [[[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]]

    Args:
        like: maps (B, C, H, W) of the size, dtype (float32 or float64) and device.
        window_size: side of the window, odd.
        sigma: standard deviation of the weights, a product of two Gaussians with sum 1.
        border: as of `ssim_index`.
    """

    def __init__(self, like: Tensor, window_size: int, sigma: float, border: Border) -> None:
        self.half = window_size // 2
        self.border = border
        self.offsets = torch.arange(-self.half, self.half + 1, device=like.device)
        weights = (-0.5 * (self.offsets.to(like.dtype) / sigma).square()).exp()
        self.weights = weights / weights.sum()
        height, width = like.shape[2:]
        self.rows = self._band(height)
        self.columns = self.rows if width == height else self._band(width)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean around every position of maps; call it outside autocast.

        Returns:
            (B, C, H, W), smaller by window_size - 1 if the border is `"valid"`.
        """
        return cast(Tensor, _BandProduct.apply(x, self.rows, self.columns))

    def _band(self, size: int) -> Band:
        """Return the matrix (size, size) that takes the means along an axis of `size` positions.

        With a border of `"valid"` it has window_size - 1 fewer rows.
        """
        positions = torch.arange(size, device=self.offsets.device).unsqueeze(1) + self.offsets
        weights = self.weights.expand(positions.shape)
        if self.border == "valid":
            whole = slice(self.half, size - self.half)
            positions = positions[whole]
            weights = weights[whole]
        if self.border == "reflect":
            # Mirror at 0, then at the last position.
            positions = size - 1 - (size - 1 - positions.abs()).abs()
        if self.border == "renorm":
            weights = weights * ((positions >= 0) & (positions < size))
            weights = weights / weights.sum(1, keepdim=True)
            positions = positions.clamp(0, size - 1)  # where the weight is 0, anywhere will do
        band = weights.new_zeros(len(positions), size).scatter_add(1, positions, weights)
        shift = self.half if self.border == "valid" else 0
        return Band(_blocks(band, self.half, shift), _blocks(band.mT, self.half, -shift))


def _blocks(band: Tensor, half: int, shift: int) -> list[Block]:
    """Cut a band matrix into blocks of rows, without the columns that are zero there.

    Args:
        band: (n, m).
        half: entries on either side of the middle of a row, which mirrored borders keep to.
        shift: of the middle of a row to the right of the diagonal.
    """
    num_rows, num_columns = band.shape
    # On an accelerator one large product is faster than several small ones.
    step = BLOCK if band.device.type == "cpu" else num_rows
    blocks = []
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        first = max(rows.start + shift - half, 0)
        columns = slice(first, min(rows.stop + shift + half, num_columns))
        blocks.append(Block(rows, columns, band[rows, columns].contiguous()))
    return blocks


class _BandProduct(Function):
    """R x Cᵀ of every map, whose gradient is Rᵀ g C: the same with transposed bands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Band, columns: Band) -> Tensor:
        ctx.bands = rows, columns
        return _rows_product(rows.blocks, _columns_product(x, columns.blocks))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.bands
        turned = Band(rows.transposed, rows.blocks), Band(columns.transposed, columns.blocks)
        # `backward` may be called inside autocast, which the loss had left.
        with full_precision(grad.device):
            return cast(Tensor, _BandProduct.apply(grad, *turned)), None, None


def _rows_product(blocks: list[Block], x: Tensor) -> Tensor:
    parts = [block.values @ x[..., block.columns, :] for block in blocks]
    return torch.cat(parts, -2) if len(parts) > 1 else parts[0]


def _columns_product(x: Tensor, blocks: list[Block]) -> Tensor:
    parts = [x[..., block.columns] @ block.values.mT for block in blocks]
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

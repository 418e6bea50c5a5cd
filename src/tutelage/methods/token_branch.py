"""The exit branch of OFA-KD for token features: merge neighbours, a few transformer blocks, a linear classifier.

Source: Z. Hao et al., NeurIPS 2023, arXiv 2310.19444; official code Hao840/OFAKD@f7bb896 `distillers/ofa.py`,
`distillers/utils.py` (`PatchMerging`, `TokenFnContext`), written anew from its description.

Differs from the official code: grids need not be square or even (zeros are added at the bottom and right), any number
of prefix tokens (the first is read), any width (a linear layer brings tokens that are not merged to it).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.errors import UserError

HEADS, LAST_GRID = 4, 7


class TokenBranch(nn.Module):
    """Class logits from tokens (N, prefix + H·W, D), or from a map (N, H, W, D).

    >>> branch = TokenBranch((14, 14), prefix=1, inputs=8, width=8, num_classes=5, stage=3)
    >>> branch(torch.zeros(2, 197, 8)).shape, len(branch.merges), len(branch.blocks)
    (torch.Size([2, 5]), 1, 1)

    Args:
        grid: (H, W) of the patch tokens.
        prefix: number of tokens before them; the first is read out, or the mean of all tokens if there is none.
        inputs: D.
        width: of the blocks.
        num_classes: number of logits.
        stage: 1 to 4; 4 - stage blocks, at least one.
    """

    def __init__(
        self, grid: tuple[int, int], prefix: int, inputs: int, width: int, num_classes: int, stage: int
    ) -> None:
        super().__init__()
        self.grid, self.prefix = grid, prefix
        count = merges(grid)
        self.merges = nn.ModuleList(
            Merge(width if i else inputs, width, active=i == 0 or i < count - 1) for i in range(count)
        )
        alike = inputs == width or bool(count and not prefix)
        self.widen = nn.Identity() if alike else nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(max(4 - stage, 1))))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes).

        Raises:
            UserError: the number of tokens is not prefix + H·W.
        """
        grid = (x.shape[1], x.shape[2]) if x.ndim == 4 else self.grid
        x = x.flatten(1, 2) if x.ndim == 4 else x
        if x.shape[1] != self.prefix + grid[0] * grid[1]:
            raise UserError(
                f"an exit branch got {x.shape[1]} tokens, but was built for {self.prefix} prefix tokens and a grid of "
                f"{grid[0]} × {grid[1]}; train with images of one size"
            )
        first, patches = x[:, : self.prefix], x[:, self.prefix :]
        for merge in self.merges:
            patches, grid = merge(patches, grid)
        if not self.merges:
            patches = self.widen(patches)
        x = self.blocks(torch.cat((self.widen(first), patches), 1) if self.prefix else patches)
        logits: Tensor = self.classifier(x[:, 0] if self.prefix else x.mean(1))
        return logits


class Merge(nn.Module):
    """Four neighbouring tokens become one: concatenated, normalised, projected.

    Args:
        inputs, width: channels before and after.
        active: end in a GELU.
    """

    def __init__(self, inputs: int, width: int, active: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * inputs)
        self.reduction = nn.Linear(4 * inputs, width, bias=False)
        self.activation = nn.GELU() if active else nn.Identity()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Return a quarter of the tokens, and their grid."""
        x = F.pad(x.reshape(len(x), *grid, -1), (0, 0, 0, grid[1] % 2, 0, grid[0] % 2))
        parts = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        x = self.activation(self.reduction(self.norm(torch.cat(parts, -1))))
        return x.flatten(1, 2), (x.shape[1], x.shape[2])


class Block(nn.Module):
    """A pre-norm transformer block: queries, keys, values without bias; as many heads up to 4 as divide the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(heads for heads in range(1, HEADS + 1) if width % heads == 0)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, L, width)."""
        n, count, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.proj(attended)
        mixed: Tensor = self.mlp(self.norm2(x))
        return x + mixed


def merges(grid: tuple[int, int]) -> int:
    """Return how often a grid is halved on its way to 7 × 7, rounded down.

    >>> [merges((side, side)) for side in (56, 32, 16, 14, 13, 7, 2)]
    [3, 2, 1, 1, 0, 0, 0]
    """
    side = math.isqrt(grid[0] * grid[1])
    return max(int(side // LAST_GRID).bit_length() - 1, 0)

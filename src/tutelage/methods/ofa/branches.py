"""Exit branches: small trainable networks that turn a student's feature into class logits.

Source: Z. Hao et al., "One-for-All", NeurIPS 2023, arXiv 2310.19444; official code
Hao840/OFAKD@f7bb896 `distillers/ofa.py` (`OFA.__init__`) and `distillers/utils.py` (`SepConv`,
`PatchMerging`, `TokenFnContext`). Written anew from a description of it.

Maps (N, C, H, W) get convolutions, tokens (N, L, D) and channels-last maps (N, H, W, D) get
transformer blocks.

Differs from the official code:
- The layout comes from one real batch (`layout.py`), not from a table of patched models.
- Grids need not be square or even; zeros are added at the bottom and on the right.
- Any number of prefix tokens, of which the first is classified, and any width: a linear layer
  brings tokens that are not merged to the width of the branch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.methods.ofa.layout import LAST_STAGE, FeatureLayout

MAX_HEADS = 4
MERGED_SIDE = 7  # tokens are merged until the side of their grid is about 7


def exit_branch(layout: FeatureLayout, stage: int, width: int, num_classes: int) -> nn.Module:
    """Return an untrained branch for a feature of this layout.

    >>> type(exit_branch(FeatureLayout(4), 2, 8, 5)).__name__
    'MapBranch'
    >>> type(exit_branch(FeatureLayout(4, (14, 14), 1), 2, 8, 5)).__name__
    'TokenBranch'

    Args:
        layout: the layout of the feature.
        stage: number of the stage, 1 to 4, where 4 is the student's last.
        width: channels of the classifier's input.
        num_classes: number of logits.
    """
    branch: nn.Module
    if layout.grid is None:
        branch = MapBranch(
            in_channels=layout.channels,
            width=width,
            num_classes=num_classes,
            stage=stage,
        )
    else:
        branch = TokenBranch(
            grid=layout.grid,
            prefix_tokens=layout.prefix_tokens,
            in_channels=layout.channels,
            width=width,
            num_classes=num_classes,
            stage=stage,
        )
    return branch.apply(_init_weights)


class MapBranch(nn.Module):
    """Class logits from a map (N, C, H, W).

    4 - stage blocks halve the map and double its channels, the last block to `width` channels.
    Stage 4 has one 1×1 convolution instead. Then follow pooling and a linear classifier.

    >>> branch = MapBranch(in_channels=16, width=40, num_classes=5, stage=3)
    >>> branch(torch.zeros(2, 16, 9, 7)).shape
    torch.Size([2, 5])

    Args:
        in_channels: channels of the map.
        width: channels of the classifier's input.
        num_classes: number of logits.
        stage: 1 to 4.
    """

    def __init__(self, *, in_channels: int, width: int, num_classes: int, stage: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = in_channels
        for number in range(stage, LAST_STAGE):
            is_last_block = number == LAST_STAGE - 1
            out_channels = width if is_last_block else 2 * channels
            blocks.append(_downsampling_block(channels, out_channels))
            channels = out_channels
        if not blocks:
            blocks.append(nn.Conv2d(in_channels, width, kernel_size=1))
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes).

        Raises:
            UserError: If batch norm has one value per channel in train mode.
        """
        n, _, height, width = x.shape
        try:
            x = self.blocks(x)
        except ValueError as error:  # of batch norm, which names neither the batch nor the branch
            raise UserError(
                f"an exit branch cannot train on a batch of {n} whose map of {height} × {width} "
                "shrinks to one value a channel; use a larger batch"
            ) from error
        logits: Tensor = self.classifier(self.pool(x).flatten(1))
        return logits


class TokenBranch(nn.Module):
    """Class logits from tokens (N, prefix + H·W, D), or from a map (N, H, W, D).

    The patch tokens are merged to a grid of about 7 × 7, then follow 4 - stage transformer blocks
    (at least one) and a linear classifier. It reads the first prefix token, or the mean of all
    tokens if there is no prefix.

    >>> branch = TokenBranch(
    ...     grid=(14, 14), prefix_tokens=1, in_channels=8, width=8, num_classes=5, stage=3
    ... )
    >>> branch(torch.zeros(2, 197, 8)).shape, len(branch.merges), len(branch.blocks)
    (torch.Size([2, 5]), 1, 1)

    Args:
        grid: (H, W) of the patch tokens.
        prefix_tokens: number of tokens before the patch tokens.
        in_channels: D.
        width: channels of the blocks.
        num_classes: number of logits.
        stage: 1 to 4.
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        prefix_tokens: int,
        in_channels: int,
        width: int,
        num_classes: int,
        stage: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.prefix_tokens = prefix_tokens
        merges = []
        count = num_merges(grid)
        for number in range(count):
            # As in the official code: of several merges, only the last has no activation.
            has_activation = number == 0 or number < count - 1
            channels = in_channels if number == 0 else width
            merges.append(PatchMerging(channels, width, activation=has_activation))
        self.merges = nn.ModuleList(merges)
        # Merging brings the patch tokens to the width, but not the prefix tokens.
        all_tokens_are_merged = count > 0 and prefix_tokens == 0
        self.widen: nn.Module = nn.Identity()
        if in_channels != width and not all_tokens_are_merged:
            self.widen = nn.Linear(in_channels, width)
        num_blocks = max(LAST_STAGE - stage, 1)
        self.blocks = nn.Sequential(*[TransformerBlock(width) for _ in range(num_blocks)])
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes).

        Raises:
            UserError: If the number of tokens is not prefix + H·W.
        """
        grid = self.grid
        if x.ndim == 4:
            grid = (x.shape[1], x.shape[2])  # a map tells its size, which may change
            x = x.flatten(1, 2)
        if x.shape[1] != self.prefix_tokens + grid[0] * grid[1]:
            raise UserError(
                f"an exit branch got {x.shape[1]} tokens, but was built for {self.prefix_tokens} "
                f"prefix tokens and a grid of {grid[0]} × {grid[1]}; train with images of one size"
            )
        prefix = x[:, : self.prefix_tokens]
        patches = x[:, self.prefix_tokens :]
        for merge in self.merges:
            patches, grid = merge(patches, grid)
        if not self.merges:
            patches = self.widen(patches)
        if self.prefix_tokens:
            tokens = self.blocks(torch.cat((self.widen(prefix), patches), 1))
            pooled = tokens[:, 0]
        else:
            pooled = self.blocks(patches).mean(1)
        logits: Tensor = self.classifier(pooled)
        return logits


class PatchMerging(nn.Module):
    """Merge every 2 × 2 neighboring tokens into one: concatenate, normalize, project.

    Args:
        in_channels: channels of the tokens.
        out_channels: channels of the merged tokens.
        activation: whether a GELU follows.
    """

    def __init__(self, in_channels: int, out_channels: int, *, activation: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)
        self.activation = nn.GELU() if activation else nn.Identity()

    def forward(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Return the merged tokens and their grid.

        Args:
            x: tokens (N, H·W, D).
            grid: (H, W).
        """
        height, width = grid
        x = x.reshape(len(x), height, width, -1)
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # Down before right, the order of the official code's weights.
        neighbors = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])
        x = self.activation(self.reduction(self.norm(torch.cat(neighbors, -1))))
        return x.flatten(1, 2), (x.shape[1], x.shape[2])


class TransformerBlock(nn.Module):
    """A pre-norm transformer block without bias for queries, keys and values.

    It has as many heads, up to 4, as divide the width.

    Args:
        width: channels of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_heads = max(heads for heads in range(1, MAX_HEADS + 1) if width % heads == 0)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, L, width)."""
        n, num_tokens, width = x.shape
        qkv = self.qkv(self.norm1(x))
        qkv = qkv.view(n, num_tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = self.mlp(self.norm2(x))
        return x + mixed


def num_merges(grid: tuple[int, int]) -> int:
    """Return how often a grid is halved on its way to 7 × 7, rounded down.

    >>> [num_merges((side, side)) for side in (56, 32, 16, 14, 13, 7, 2)]
    [3, 2, 1, 1, 0, 0, 0]
    """
    side = math.isqrt(grid[0] * grid[1])
    return max((side // MERGED_SIDE).bit_length() - 1, 0)


def _downsampling_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        *_separable_conv(in_channels, in_channels, stride=2),
        *_separable_conv(in_channels, out_channels, stride=1),
    )


def _separable_conv(in_channels: int, out_channels: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)

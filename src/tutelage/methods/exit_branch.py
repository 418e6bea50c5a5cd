"""Exit branches: small trainable networks that turn a student's feature of any stage into class logits.

Source: OFA-KD, Z. Hao et al., NeurIPS 2023, arXiv 2310.19444; official code Hao840/OFAKD@f7bb896 `distillers/ofa.py`
(`OFA.__init__`) and `distillers/utils.py` (`SepConv`), written anew from its description.

A map (N, C, H, W) gets convolutions, tokens (N, L, D) and channels-last maps (N, H, W, D) a `TokenBranch`. The official
table of patched models is replaced by the shapes of one real batch. What a shape cannot tell is asked for, not guessed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.methods.token_branch import TokenBranch
from tutelage.models.blocks import conv_bn

STAGES = 4


class Reading(NamedTuple):
    """How a feature is read.

    Attributes:
        channels: C or D.
        grid: (H, W) of tokens or of a channels-last map; None for a map (N, C, H, W).
        prefix: number of tokens before the grid's.
    """

    channels: int
    grid: tuple[int, int] | None = None
    prefix: int = 0


class MapBranch(nn.Sequential):
    """Class logits from a map (N, C, H, W).

    4 - stage blocks halve the map and double its channels, the last one to `width`; stage 4 is one 1×1 convolution
    instead. Then pooling and a linear classifier.

    >>> import torch
    >>> MapBranch(inputs=16, width=40, num_classes=5, stage=3)(torch.zeros(2, 16, 9, 7)).shape
    torch.Size([2, 5])
    """

    def __init__(self, inputs: int, width: int, num_classes: int, stage: int) -> None:
        blocks: list[nn.Module] = [nn.Conv2d(inputs, width, 1)] if stage == STAGES else []
        for number in range(stage, STAGES):
            outputs = width if number == STAGES - 1 else 2 * inputs
            blocks.append(nn.Sequential(*_separable(inputs, inputs, 2), *_separable(inputs, outputs, 1)))
            inputs = outputs
        head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": nn.Linear(width, num_classes)}
        super().__init__(OrderedDict({"blocks": nn.Sequential(*blocks), **head}))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        n, _, height, width = x.shape
        try:
            for module in self:
                x = module(x)
        except ValueError as error:  # batch norm's own: it needs more than one value per channel
            raise UserError(
                f"an exit branch cannot train on a batch of {n} whose map of {height} × {width} shrinks to one value "
                "a channel; use a larger batch"
            ) from error
        return x


def exit_branch(reading: Reading, stage: int, width: int, num_classes: int) -> nn.Module:
    """Return an untrained branch for features that are read so; `stage` is 1 to 4, where 4 is the student's last.

    >>> [type(exit_branch(r, 2, 8, 5)).__name__ for r in (Reading(4), Reading(4, (14, 14), 1))]
    ['MapBranch', 'TokenBranch']
    """
    branch: nn.Module
    if reading.grid is None:
        branch = MapBranch(reading.channels, width, num_classes, stage)
    else:
        branch = TokenBranch(reading.grid, reading.prefix, reading.channels, width, num_classes, stage)
    return branch.apply(_initial)


def read(
    feature: Tensor, name: str, layout: str | None = None, prefix: int = 0, grid: tuple[int, int] | None = None
) -> Reading:
    """Say how a feature is read, from its shape and what the user said of it.

    >>> import torch
    >>> read(torch.zeros(2, 197, 8), "blocks.3", prefix=1)
    Reading(channels=8, grid=(14, 14), prefix=1)

    Args:
        feature: (N, C, H, W), (N, H, W, D) or (N, L, D).
        name: its tap, for messages.
        layout: of features with four dimensions: "NCHW" or "NHWC"; None takes a square map (N, C, H, H), C ≠ H.
        prefix: number of tokens before the grid's.
        grid: (H, W) of the tokens; None takes a square.

    Raises:
        UserError: the shape allows more than one reading, or none.
    """
    shape = tuple(feature.shape)
    if feature.ndim == 3:
        return Reading(shape[2], _grid(shape[1], name, prefix, grid), prefix)
    if feature.ndim != 4:
        raise UserError(f"the stage {name!r} gives {shape}; an exit branch needs a map of four dimensions, or tokens")
    if layout not in ("NCHW", "NHWC") and (layout or not shape[1] != shape[2] == shape[3]):
        raise UserError(
            f"the stage {name!r} gives {shape}, whose shape does not tell where the channels are; layout is 'NCHW' or "
            f"'NHWC', got {layout!r}"
        )
    return Reading(shape[3], (shape[1], shape[2])) if layout == "NHWC" else Reading(shape[1])


def _grid(tokens: int, name: str, prefix: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    side = math.isqrt(max(tokens - prefix, 0))
    found = (side, side) if grid is None else grid
    if found[0] * found[1] + prefix == tokens and tokens > prefix:
        return found
    what = f"a grid of {grid[0]} × {grid[1]}" if grid else "a square grid"
    others = [n for n in range(tokens) if math.isqrt(tokens - n) ** 2 == tokens - n]
    hint = f"set prefix_tokens (with {others[0]} a square is left), or grid" if others else "set grid"
    raise UserError(
        f"the stage {name!r} gives {tokens} tokens, which are not {prefix} prefix tokens and {what}; {hint}"
    )


def _separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    return [depthwise, *conv_bn(inputs, outputs, 1), nn.ReLU()]


def _initial(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)

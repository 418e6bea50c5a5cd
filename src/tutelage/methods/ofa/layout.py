"""Where the channels of a student's feature are, and which of its tokens form a grid.

A shape does not always tell. Then the user is asked, instead of guessing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from tutelage.errors import UserError

LAST_STAGE = 4
Layout = Literal["NCHW", "NHWC"]


class FeatureLayout(NamedTuple):
    """The layout of a stage's feature, without the batch.

    Attributes:
        channels: number of channels.
        grid: (H, W) of the patch tokens or of a channels-last map; None for a map (N, C, H, W).
        prefix_tokens: number of class and register tokens before the patch tokens.
    """

    channels: int
    grid: tuple[int, int] | None = None
    prefix_tokens: int = 0


def feature_layouts(
    features: Mapping[str, Tensor],
    *,
    layout: Layout | None = None,
    prefix_tokens: int = 0,
    grid: tuple[int, int] | None = None,
) -> dict[str, FeatureLayout]:
    """Return the layouts of the features of all stages.

    Args:
        features: the features by layer.
        layout: see `feature_layout`.
        prefix_tokens: see `feature_layout`.
        grid: see `feature_layout`.

    Raises:
        UserError: As `feature_layout`, or if there are settings for tokens but no tokens.
    """
    describes_tokens = prefix_tokens > 0 or grid is not None
    if describes_tokens and features and all(x.ndim != 3 for x in features.values()):
        shapes = {name: tuple(feature.shape) for name, feature in features.items()}
        raise UserError(
            f"prefix_tokens and grid describe tokens (N, L, D), but the stages give {shapes}; "
            "leave them out"
        )
    layouts = {}
    for name, feature in features.items():
        layouts[name] = feature_layout(
            feature, name, layout=layout, prefix_tokens=prefix_tokens, grid=grid
        )
    return layouts


def feature_layout(
    feature: Tensor,
    name: str,
    *,
    layout: Layout | None = None,
    prefix_tokens: int = 0,
    grid: tuple[int, int] | None = None,
) -> FeatureLayout:
    """Return the layout of a feature, from its shape and what the user says about it.

    >>> import torch
    >>> feature_layout(torch.zeros(2, 197, 8), "blocks.3", prefix_tokens=1)
    FeatureLayout(channels=8, grid=(14, 14), prefix_tokens=1)

    Args:
        feature: (N, C, H, W), (N, H, W, D) or (N, L, D).
        name: its layer, for messages.
        layout: "NCHW" or "NHWC" for features with four dimensions; None takes only a square map
            (N, C, H, H) with C ≠ H, which cannot be anything else.
        prefix_tokens: number of tokens before the patch tokens.
        grid: (H, W) of the patch tokens; None takes a square.

    Raises:
        UserError: If the shape allows more than one layout, or none.
    """
    shape = tuple(feature.shape)
    if feature.ndim == 3:
        token_grid = _token_grid(shape[1], name, prefix_tokens, grid)
        return FeatureLayout(shape[2], token_grid, prefix_tokens)
    if feature.ndim != 4:
        raise UserError(
            f"the stage {name!r} gives {shape}; "
            "an exit branch needs a map of four dimensions, or tokens"
        )
    if layout == "NHWC":
        return FeatureLayout(shape[3], (shape[1], shape[2]))
    clearly_channels_first = layout is None and shape[1] != shape[2] == shape[3]
    if layout == "NCHW" or clearly_channels_first:
        return FeatureLayout(shape[1])
    raise UserError(
        f"the stage {name!r} gives {shape}, whose shape does not tell where the channels are; "
        f"layout is 'NCHW' or 'NHWC', got {layout!r}"
    )


def _token_grid(
    num_tokens: int, name: str, prefix_tokens: int, grid: tuple[int, int] | None
) -> tuple[int, int]:
    if grid is None:
        side = math.isqrt(max(num_tokens - prefix_tokens, 0))
        height, width = side, side
        expected = "a square grid"
    else:
        height, width = grid
        expected = f"a grid of {height} × {width}"
    if num_tokens == prefix_tokens + height * width and num_tokens > prefix_tokens:
        return height, width
    # The smallest number of prefix tokens that leaves a square is most likely what was meant.
    candidates = [n for n in range(num_tokens) if math.isqrt(num_tokens - n) ** 2 == num_tokens - n]
    hint = "set grid"
    if candidates:
        hint = f"set prefix_tokens (with {candidates[0]} a square is left), or grid"
    raise UserError(
        f"the stage {name!r} gives {num_tokens} tokens, which are not {prefix_tokens} prefix "
        f"tokens and {expected}; {hint}"
    )

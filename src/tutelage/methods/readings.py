"""How the features of a student's stages are read: where the channels are, and which tokens form a grid.

What a shape cannot tell is asked for, not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from tutelage.errors import UserError

STAGES = 4
LAYOUTS = ("NCHW", "NHWC")


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


def check_settings(stages: object, width: object, layout: str | None, prefix: int) -> None:
    """Refuse what no student can have.

    >>> check_settings({"layer1": 1, "layer4": 5}, None, None, 0)
    Traceback (most recent call last):
    tutelage.errors.UserError: OFA numbers the student's stages from 1 to 4, its last, by tap; got {'layer1': 1, \
'layer4': 5}
    """
    numbers = list(stages.values()) if isinstance(stages, Mapping) else [] if stages is None else [stages]
    if any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= STAGES for n in numbers):
        raise UserError(f"OFA numbers the student's stages from 1 to {STAGES}, its last, by tap; got {stages}")
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise UserError(f"the width of OFA's branches is a number of channels, or None; got {width!r}")
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"layout is 'NCHW', 'NHWC', or None where shapes tell; got {layout!r}")
    if prefix < 0:
        raise UserError(f"prefix_tokens counts tokens before the grid's; got {prefix}")


def read_all(
    features: Mapping[str, Tensor], layout: str | None, prefix: int, grid: tuple[int, int] | None
) -> dict[str, Reading]:
    """Say how the features of all stages are read, by their taps; see `read`.

    Raises:
        UserError: as `read`; tokens are described, but no stage gives any.
    """
    if (prefix or grid) and features and all(feature.ndim != 3 for feature in features.values()):
        shapes = {name: tuple(feature.shape) for name, feature in features.items()}
        raise UserError(
            f"prefix_tokens and grid describe tokens (N, L, D), but the stages give {shapes}; leave them out"
        )
    return {name: read(feature, name, layout, prefix, grid) for name, feature in features.items()}


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
    if layout not in LAYOUTS and (layout or not shape[1] != shape[2] == shape[3]):
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

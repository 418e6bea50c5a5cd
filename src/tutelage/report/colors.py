"""Colors that everybody can tell apart, on screen and on paper.

Maps have a cividis ramp, their differences one from blue over white to red, lines a short palette.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from tutelage.drawing.colors import text_color

LEVELS = 50  # a map's color is one of LEVELS + 1, so that a page names each of them once
_CIVIDIS = (
    "00224e",
    "083370",
    "35456c",
    "4f576c",
    "666970",
    "7d7c78",
    "948e77",
    "aea371",
    "c8b866",
    "e5cf52",
    "fee838",
)

_BLUE_RED = (
    "2166ac",
    "4393c3",
    "92c5de",
    "d1e5f0",
    "f7f7f7",
    "fddbc7",
    "f4a582",
    "d6604d",
    "b2182b",
)

LINES = ("#4a4a4a", "#0060a8", "#b84a00", "#007a5a", "#8b3a9e", "#8a6100", "#c2185b", "#006d75")
DASHES = ("6 3", "", "8 3 2 3", "2 2.5")


def level(value: float | None) -> int | None:
    """Return the level of a value between 0 and 1 (clipped); None for no value.

    >>> level(0.0), level(0.5), level(1.2), level(float("nan"))
    (0, 25, 50, None)
    """
    if value is None or math.isnan(value):
        return None
    return math.floor(min(max(value, 0.0), 1.0) * LEVELS + 0.5)


@cache
def background(level: int) -> str:
    """Return the color of a level.

    >>> background(0), background(50)
    ('#00224e', '#fee838')
    """
    return _ramp_color(_CIVIDIS, level)


@cache
def difference_background(level: int) -> str:
    """Return the color of a level of a difference; the one in the middle is no difference.

    >>> difference_background(0), difference_background(25), difference_background(50)
    ('#2166ac', '#f7f7f7', '#b2182b')
    """
    return _ramp_color(_BLUE_RED, level)


def level_styles() -> str:
    """Return the style sheet's rules of the levels: `.h0` to `.h50`, and `.d0` for differences."""
    rules = []
    for name, color in (("h", background), ("d", difference_background)):
        for index in range(LEVELS + 1):
            paper = color(index)
            rules.append(f".{name}{index}{{background:{paper};color:{text_color(paper)}}}")
    return "\n".join(rules)


def _ramp_color(ramp: Sequence[str], level: int) -> str:
    position = level / LEVELS * (len(ramp) - 1)
    index = min(math.floor(position), len(ramp) - 2)
    share = position - index
    pairs = zip(_channels(ramp[index]), _channels(ramp[index + 1]), strict=True)
    return "#" + "".join(f"{round(low + (high - low) * share):02x}" for low, high in pairs)


def _channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (0, 2, 4)]

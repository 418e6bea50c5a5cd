"""Colours that everybody can tell apart, on screen and on paper: a cividis ramp for maps, a short palette for lines."""

from __future__ import annotations

import math
from functools import cache

LEVELS = 50  # a map's colour is one of LEVELS + 1, so that a page names each of them once
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
def background(at: int) -> str:
    """Return the colour of a level.

    >>> background(0), background(50)
    ('#00224e', '#fee838')
    """
    place = at / LEVELS * (len(_CIVIDIS) - 1)
    first = min(math.floor(place), len(_CIVIDIS) - 2)
    pairs = zip(_channels(_CIVIDIS[first]), _channels(_CIVIDIS[first + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in pairs)


def ink(paper: str) -> str:
    """Return black or white, whichever reads better on `paper`; the contrast is at least 4.58.

    >>> ink("#00224e"), ink("#fee838")
    ('#ffffff', '#000000')
    """
    return max(("#000000", "#ffffff"), key=lambda colour: contrast(colour, paper))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2).

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ramp_rules() -> str:
    """Return the style sheet's rules of the levels: `.h0` to `.h50`."""
    levels = [(at, background(at)) for at in range(LEVELS + 1)]
    return "\n".join(f".h{at}{{background:{paper};color:{ink(paper)}}}" for at, paper in levels)


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (0, 2, 4)]


def _luminance(colour: str) -> float:
    shares = [channel / 255 for channel in _channels(colour.lstrip("#"))]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

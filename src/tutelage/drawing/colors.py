"""Which colors can be read on which."""

from __future__ import annotations


def text_color(paper: str) -> str:
    """Return black or white, whichever reads better on `paper`; the contrast is at least 4.58.

    >>> text_color("#00224e"), text_color("#fee838")
    ('#ffffff', '#000000')
    """
    return max(("#000000", "#ffffff"), key=lambda color: contrast(color, paper))


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of two colors, 1 to 21 (WCAG 2).

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (0, 2, 4)]


def _luminance(color: str) -> float:
    red, green, blue = (_linear(channel / 255) for channel in _channels(color.lstrip("#")))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(share: float) -> float:
    """Return a channel of sRGB as a share of light."""
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

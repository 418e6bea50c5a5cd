"""What is drawn over an image: boxes, or the class of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sketch:
    """What one image shows, or what a network found in it.

    Attributes:
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels; None where the task has no boxes.
        labels: (n,) class of each box.
        scores: (n,) how sure the network is; None for the truth.
        mask: (H, W) class of each pixel, −100 where there is none; None where the task has no masks.
    """

    boxes: Tensor | None = None
    labels: Tensor | None = None
    scores: Tensor | None = None
    mask: Tensor | None = None

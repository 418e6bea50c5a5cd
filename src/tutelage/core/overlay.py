"""What a report draws over an image, and who can say what to draw.

Tasks and methods that have nothing to draw do not implement these protocols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.core.output import Step


@dataclass(frozen=True)
class Overlay:
    """What an image shows, or what a network found in it.

    Attributes:
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels; None if the task has no boxes.
        labels: (n,) class of each box.
        scores: (n,) confidence of each box; None for the truth.
        mask: (H, W) class of each pixel, -100 for none; None if the task has no masks.
        points: (K, 2) x and y of each joint in pixels; None if the task has no points.
        point_scores: (K,) confidence of each joint; 0 for one that is not labeled.
    """

    boxes: Tensor | None = None
    labels: Tensor | None = None
    scores: Tensor | None = None
    mask: Tensor | None = None
    points: Tensor | None = None
    point_scores: Tensor | None = None


@runtime_checkable
class DrawsOverlays(Protocol):
    """A task whose truth and predictions can be drawn over its images."""

    def overlays(self, batch: Batch, output: Any = None) -> Sequence[Overlay]:
        """Return what to draw over each image of a batch.

        Args:
            batch: images in [0, 1] and their targets.
            output: what a network gave for it in eval mode; None asks for the truth.
        """
        ...


@runtime_checkable
class DrawsFurther(Protocol):
    """A task some of whose networks give further predictions, such as an ensemble of branches."""

    def further_overlays(self, batch: Batch, output: Any) -> Mapping[str, Sequence[Overlay]]:
        """Return what to draw over each image, by the name of the prediction."""
        ...


@runtime_checkable
class DrawsAgreement(Protocol):
    """A method that can show where the student agrees with the teacher."""

    def agreement_maps(self, step: Step) -> dict[str, Tensor]:
        """Return maps (rows, columns) over the first image of a step, by name.

        Values up to 1 are agreement; NaN stands for nothing to compare.
        """
        ...

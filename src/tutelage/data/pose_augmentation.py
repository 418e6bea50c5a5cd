"""Augmentation of poses: turn, scale, shift and mirror image and points together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tutelage.data._pose_geometry import compose_affine, mirror_affine, turn_and_scale
from tutelage.errors import UserError


@dataclass(frozen=True)
class PoseDraw:
    """What was drawn for one sample.

    Attributes:
        affine: (2, 3), from pixels of the input without augmentation to those of the result.
        is_mirrored: whether joints change places with their partners.
    """

    affine: Tensor
    is_mirrored: bool

    def after(self, affine: Tensor) -> Tensor:
        """Return the map of image to input, followed by what was drawn."""
        return compose_affine(self.affine, affine)


class PoseAugmentation(nn.Module):
    """Draw an affine map for each sample.

    >>> draw = PoseAugmentation(rotation=10)((64, 64))
    >>> draw.affine.shape, draw.is_mirrored
    (torch.Size([2, 3]), False)

    Args:
        rotation: in degrees; the largest of `"uniform"`, the standard deviation of `"normal"`,
            which is cut at twice that.
        scale: largest relative change of size, or standard deviation, which is cut at once that.
        shift: largest shift in x and in y, in pixels of the input, uniform.
        mirror: share of samples that are mirrored.
        rotation_share: share of samples that are turned.
        distribution: of rotation and scale; `"normal"` is that of MPII and COCO code.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        rotation: float = 0.0,
        scale: float = 0.0,
        shift: float = 0.0,
        mirror: float = 0.0,
        *,
        rotation_share: float = 1.0,
        distribution: Literal["uniform", "normal"] = "uniform",
    ) -> None:
        super().__init__()
        # Written so that NaN is out of range, too.
        if not (0 <= rotation < math.inf and 0 <= shift < math.inf and 0 <= scale < 1):
            raise UserError(
                "rotation and shift are finite and at least 0, and scale is from 0 to below 1, got "
                f"{rotation}, {shift} and {scale}"
            )
        if not (0 <= mirror <= 1 and 0 <= rotation_share <= 1):
            raise UserError(
                f"mirror and rotation_share are shares from 0 to 1, got {mirror}, {rotation_share}"
            )
        if distribution not in ("uniform", "normal"):
            raise UserError(f"distribution is 'uniform' or 'normal', got {distribution!r}")
        self.rotation = rotation
        self.scale = scale
        self.shift = shift
        self.mirror = mirror
        self.rotation_share = rotation_share
        self.distribution = distribution

    def forward(self, size: tuple[int, int]) -> PoseDraw:
        """Draw for an input of this height and width, from torch's global generator."""
        # All numbers are drawn in any case, so that options do not change each other's.
        turned, mirrored, *shifts = torch.rand(4).tolist()
        degrees = self.rotation * self._draw(2.0) * (turned < self.rotation_share)
        scale = 1.0 + self.scale * self._draw(1.0)
        shift = (self.shift * (2 * shifts[0] - 1), self.shift * (2 * shifts[1] - 1))
        affine = turn_and_scale(size, degrees, scale, shift)
        is_mirrored = mirrored < self.mirror
        if is_mirrored:
            affine = compose_affine(affine, mirror_affine(size[1]))
        return PoseDraw(affine, is_mirrored)

    def _draw(self, limit: float) -> float:
        """Return a number from -1 to 1, or a normal one within the limit."""
        if self.distribution == "uniform":
            return float(2 * torch.rand(()) - 1)
        return float(torch.randn(()).clamp(-limit, limit))

    def extra_repr(self) -> str:
        """Show the arguments, by which a recipe is recognized."""
        return (
            f"rotation={self.rotation}, scale={self.scale}, shift={self.shift}, "
            f"mirror={self.mirror}, rotation_share={self.rotation_share}, "
            f"distribution={self.distribution!r}"
        )

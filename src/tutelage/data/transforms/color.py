"""Changes of brightness, contrast, saturation and hue of whole batches."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.data.transforms.base import BatchTransform, from_unit, per_sample, to_unit
from tutelage.data.transforms.draws import Draws
from tutelage.errors import UserError

GRAY = (0.2989, 0.587, 0.114)  # shares of red, green and blue in brightness (ITU-R 601)


class ColorJitter(BatchTransform):
    """Change brightness, contrast, saturation and hue at random, in random order.

    Factors, order and arithmetic are those of torchvision's `ColorJitter` on float images; uint8
    images are rounded once, at the end.

    Args:
        brightness: the factor is drawn from [max(0, 1 - brightness), 1 + brightness].
        contrast: the factor, as for brightness.
        saturation: the factor, as for brightness; gray images have none.
        hue: the shift around the color circle is drawn from [-hue, hue]; at most 0.5.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        super().__init__()
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise UserError(
                "ColorJitter takes ranges from 0 on, hue up to 0.5, got "
                f"{brightness}, {contrast}, {saturation}, {hue}"
            )
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return images in other colors."""
        uniform = draws.uniform(8)
        order = uniform[:, 4:].argsort(1)
        pixels = to_unit(images)
        for step in range(4):
            # Each image is at another of the four changes; a group is changed together.
            for change, values in enumerate(self._changes(uniform)):
                if values is None:
                    continue
                members = (order[:, step] == change).nonzero().flatten()
                if len(members) == 0:
                    continue
                rows = members.to(images.device, non_blocking=True)
                own_values = per_sample(values[members].float(), pixels)
                changed = _CHANGES[change](pixels[rows], own_values)
                pixels = pixels.index_copy(0, rows, changed)
        return from_unit(pixels, images.dtype)

    def _changes(self, uniform: Tensor) -> list[Tensor | None]:
        """Return the value of every change for all images, None for a change that does nothing."""
        values: list[Tensor | None] = []
        for number, width in enumerate((self.brightness, self.contrast, self.saturation)):
            low = max(0.0, 1 - width)
            values.append(low + uniform[:, number] * (1 + width - low) if width else None)
        values.append((2 * uniform[:, 3] - 1) * self.hue if self.hue else None)
        return values

    def extra_repr(self) -> str:
        """Say the ranges."""
        return (
            f"brightness={self.brightness}, contrast={self.contrast}, "
            f"saturation={self.saturation}, hue={self.hue}"
        )


def to_gray(images: Tensor) -> Tensor:
    """Return the brightness (N, 1, H, W) of images (N, C, H, W)."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.chunk(3, dim=1)
    return GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue


def _brightness(images: Tensor, factors: Tensor) -> Tensor:
    return (images * factors).clamp_(0, 1)


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    mean = to_gray(images).mean((1, 2, 3), keepdim=True)
    return (images * factors + (1 - factors) * mean).clamp_(0, 1)


def _saturation(images: Tensor, factors: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    return (images * factors + (1 - factors) * to_gray(images)).clamp_(0, 1)


def _hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Return images (N, 3, H, W) whose hue is turned by shifts (N, 1, 1, 1), 1 for a full circle.

    The color circle has six sectors, in each of which one channel is the largest and one the
    smallest; so a channel is a function of its distance to the hue, and no sector is looked up.
    """
    if images.shape[1] != 3:
        return images
    largest = images.amax(1, keepdim=True)
    chroma = largest - images.amin(1, keepdim=True)
    red, green, blue = images.chunk(3, dim=1)
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    sector = torch.where(
        largest == red,
        (green - blue) / safe,
        torch.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sector + 6 * shifts
    # A channel falls by the chroma between one and two sectors away from where it is largest.
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    place = torch.remainder(turned + offsets, 6)
    return largest - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


_CHANGES = (_brightness, _contrast, _saturation, _hue)

"""The augmentations that several data sets share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PaddedCrop(nn.Module):
    """Pad with zeros, crop at random, perhaps mirror: the augmentation of small images.

    A whole batch is one gather. Each image is cut as torchvision's `RandomCrop` and
    `RandomHorizontalFlip` would cut it after `torch.manual_seed` with its own seed.

    >>> PaddedCrop(8, padding=1).whole_batch(torch.zeros(2, 3, 8, 8), [5, 6]).shape
    torch.Size([2, 3, 8, 8])

    Args:
        size: side of the crop in pixels.
        padding: pixels added at every edge.
        flip: whether to mirror half of the images.
    """

    def __init__(self, size: int, padding: int, flip: bool = True) -> None:
        super().__init__()
        self.size = size
        self.padding = padding
        self.flip = flip

    def forward(self, image: Tensor) -> Tensor:
        """Return one image (C, H, W), cut as torch's global generator says."""
        return self._cut(image[None], [self._draw(image.shape, None)])[0]

    def whole_batch(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return images (N, C, H, W), each cut as its seed says."""
        generator = torch.Generator()
        shape = images.shape[1:]
        draws = [self._draw(shape, generator.manual_seed(seed)) for seed in seeds]
        return self._cut(images, draws)

    def _draw(
        self, shape: Sequence[int], generator: torch.Generator | None
    ) -> tuple[int, int, bool]:
        """Return top, left, and whether to mirror."""
        corner = []
        for side in shape[-2:]:
            room = side + 2 * self.padding - self.size
            # torchvision does not draw where there is only one place.
            place = torch.randint(room + 1, (1,), generator=generator) if room > 0 else 0
            corner.append(int(place))
        mirrored = self.flip and bool(torch.rand(1, generator=generator) < 0.5)
        return corner[0], corner[1], mirrored

    def _cut(self, images: Tensor, draws: Sequence[tuple[int, int, bool]]) -> Tensor:
        top, left, mirrored = torch.tensor(draws, dtype=torch.int64).unbind(1)
        padded = F.pad(images, (self.padding,) * 4)
        steps = torch.arange(self.size)
        rows = top[:, None] + steps
        columns = left[:, None] + torch.where(mirrored[:, None] > 0, steps.flip(0), steps)
        items = torch.arange(len(images))
        # (N, size, size, C): two index axes apart from the channels, which stay whole.
        cut = padded.movedim(1, -1)[items[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cut.movedim(-1, 1)


def resized_crop(size: int, smallest: float = 0.08) -> nn.Module:
    """Return the augmentation of ImageNet recipes: crop at random scale and aspect, mirror.

    Args:
        size: side of the result in pixels.
        smallest: smallest share of the image's area that a crop takes.
    """
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, scale=(smallest, 1.0), antialias=True)
    compose: nn.Module = v2.Compose([crop, v2.RandomHorizontalFlip()])
    return compose


def mirror() -> nn.Module:
    """Return the augmentation that mirrors half of the images."""
    from torchvision.transforms import v2

    flip: nn.Module = v2.RandomHorizontalFlip()
    return flip

"""Crops and mirror images of whole batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tutelage.data.transforms.base import BatchTransform, per_sample
from tutelage.data.transforms.draws import Draws
from tutelage.errors import UserError

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""

MAX_TRIES = 10  # at a crop that fits into the image, as in torchvision


class RandomHorizontalFlip(BatchTransform):
    """Mirror images, each with the same probability.

    Args:
        p: the probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return images of which some are mirrored."""
        is_mirrored = per_sample(draws.uniform(1) < self.p, images)
        return torch.where(is_mirrored, images.flip(-1), images)

    def extra_repr(self) -> str:
        """Say the probability."""
        return f"p={self.p}"


class PaddedCrop(BatchTransform):
    """Pad with zeros, crop at random, perhaps mirror: the augmentation of small images.

    These are torchvision's `RandomCrop(size, padding)` and `RandomHorizontalFlip`, as one gather.

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

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the crops.

        Raises:
            UserError: If the padded images are smaller than a crop.
        """
        number, channels, height, width = images.shape
        rooms = [side + 2 * self.padding - self.size for side in (height, width)]
        if min(rooms) < 0:
            raise UserError(
                f"images of {height}×{width} pixels, padded by {self.padding}, are smaller than "
                f"a crop of {self.size}; choose a smaller size for the augmentation"
            )
        uniform = draws.uniform(3)
        top, left = (uniform[:, :2] * (torch.tensor(rooms) + 1)).long().unbind(1)
        is_mirrored = (uniform[:, 2:] < 0.5) & self.flip
        steps = torch.arange(self.size)
        rows = top[:, None] + steps
        columns = left[:, None] + torch.where(is_mirrored, steps.flip(0), steps)
        padded_width = width + 2 * self.padding
        places = rows[:, :, None] * padded_width + columns[:, None, :]
        places = places.to(images.device, non_blocking=True).view(number, 1, -1)
        padded = F.pad(images, (self.padding,) * 4).flatten(2)
        cut = padded.gather(2, places.expand(-1, channels, -1))
        return cut.view(number, channels, self.size, self.size)

    def extra_repr(self) -> str:
        """Say the settings."""
        return f"size={self.size}, padding={self.padding}, flip={self.flip}"


class RandomResizedCrop(BatchTransform):
    """Crop at random scale and aspect ratio, and resize: the augmentation of ImageNet recipes.

    Boxes are drawn as torchvision's `RandomResizedCrop` draws them, and resized bilinearly with
    antialiasing. That is linear in rows and columns, so on an accelerator a batch of different
    boxes is resized by two batched matrix products; on a CPU, where torch resizes bytes fast, one
    by one. The two may differ by one of 255 levels.

    Args:
        size: side of the result in pixels.
        scale: smallest and largest share of the image's area that a box takes.
        ratio: smallest and largest aspect ratio of a box, width by height.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        super().__init__()
        self.size = size
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the resized crops."""
        height, width = images.shape[-2:]
        boxes = self.boxes([(height, width)] * len(images), draws)
        if images.device.type == "cpu":
            return torch.stack([self.cut(*each) for each in zip(images, boxes, strict=True)])
        return self._cut_together(images, boxes)

    def cut(self, image: Tensor, box: Box) -> Tensor:
        """Return the part of an image (C, H, W) in a box, resized to (C, size, size)."""
        top, left, height, width = box
        return resize(image[:, top : top + height, left : left + width], (self.size, self.size))

    def _cut_together(self, images: Tensor, boxes: Sequence[Box]) -> Tensor:
        """Return the parts of all images (N, C, H, W) by matrix products."""
        height, width = images.shape[-2:]
        top, left, box_height, box_width = torch.tensor(boxes).unbind(1)
        rows = _resizing(top, box_height, height, self.size).to(images.device, non_blocking=True)
        columns = _resizing(left, box_width, width, self.size).to(images.device, non_blocking=True)
        narrow = images.float() @ columns[:, None].mT
        resized = rows[:, None] @ narrow
        if images.dtype == torch.uint8:
            resized = resized.round_().clamp_(0, 255)
        return resized.to(images.dtype)

    def boxes(self, sides: Sequence[tuple[int, int]], draws: Draws) -> list[Box]:
        """Return where each image is cut.

        Args:
            sides: height and width of every image.
            draws: of the samples.
        """
        pairs = zip(sides, self.numbers(draws), strict=True)
        return [self.box(height, width, numbers) for (height, width), numbers in pairs]

    def numbers(self, draws: Draws) -> list[list[float]]:
        """Return the random numbers in [0, 1) that `box` takes, for each of the samples."""
        numbers: list[list[float]] = draws.uniform(4 * MAX_TRIES).tolist()
        return numbers

    def box(self, height: int, width: int, numbers: Sequence[float]) -> Box:
        """Return where an image of this height and width is cut, by its random numbers."""
        smallest, largest = self.scale
        log_low, log_high = (math.log(value) for value in self.ratio)
        for number in range(MAX_TRIES):
            share, aspect, down, right = numbers[4 * number : 4 * number + 4]
            area = height * width * (smallest + share * (largest - smallest))
            ratio = math.exp(log_low + aspect * (log_high - log_low))
            box_width = round(math.sqrt(area * ratio))
            box_height = round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                top = int(down * (height - box_height + 1))
                left = int(right * (width - box_width + 1))
                return top, left, box_height, box_width
        # The largest part in the middle whose aspect ratio is allowed.
        low, high = self.ratio
        box_height = max(1, min(height, round(width / low)))
        box_width = max(1, min(width, round(height * high)))
        return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width

    def extra_repr(self) -> str:
        """Say the settings."""
        return f"size={self.size}, scale={self.scale}, ratio={self.ratio}"


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image (C, H, W) in another size, with the pixels of torchvision's `resize`.

    Without torchvision's dispatch by the kind of image, which takes as long as a small image does.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _resizing(starts: Tensor, lengths: Tensor, side: int, size: int) -> Tensor:
    """Return the matrices (N, size, side) float32 that resize a part of each row of pixels.

    A pixel of the result is the mean of the pixels around its place, with weights of a triangle
    that is as wide as the part is reduced (antialiasing), and not narrower than two pixels.

    Args:
        starts: (N,) int64, the first pixel of each part.
        lengths: (N,) int64, of the parts.
        side: pixels of a whole row.
        size: pixels of the result.
    """
    scale = (lengths / size)[:, None, None]
    centers = (torch.arange(size)[:, None] + 0.5) * scale
    pixels = torch.arange(side) - starts[:, None, None]
    distances = (pixels + 0.5 - centers) / scale.clamp(min=1)
    weights = (1 - distances.abs()).clamp_(min=0)
    weights *= (pixels >= 0) & (pixels < lengths[:, None, None])
    return (weights / weights.sum(2, keepdim=True)).float()

"""The augmentations that several data sets share."""

from __future__ import annotations

from torch import nn

from tutelage.data.transforms.base import BatchTransform, Compose
from tutelage.data.transforms.geometry import RandomHorizontalFlip, RandomResizedCrop


def resized_crop(size: int, smallest: float = 0.08) -> BatchTransform:
    """Return the augmentation of ImageNet recipes: crop at random scale and aspect, mirror.

    Args:
        size: side of the result in pixels.
        smallest: smallest share of the image's area that a crop takes.
    """
    return Compose([RandomResizedCrop(size, scale=(smallest, 1.0)), RandomHorizontalFlip()])


def mirror() -> nn.Module:
    """Return the augmentation that mirrors half of the images, and boxes or masks with them."""
    from torchvision.transforms import v2

    flip: nn.Module = v2.RandomHorizontalFlip()
    return flip

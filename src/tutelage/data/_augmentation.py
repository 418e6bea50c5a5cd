"""The augmentations that several data sets share."""

from __future__ import annotations

from torch import nn


def padded_crop(size: int, padding: int, flip: bool) -> nn.Module:
    """Return the augmentation of small images: pad with zeros, crop at random, perhaps mirror.

    Args:
        size: side of the crop in pixels.
        padding: pixels added at every edge.
        flip: whether to mirror half of the images.
    """
    from torchvision.transforms import v2

    steps: list[nn.Module] = [v2.RandomCrop(size, padding=padding)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    compose: nn.Module = v2.Compose(steps)
    return compose


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

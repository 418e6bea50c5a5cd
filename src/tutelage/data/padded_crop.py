"""The augmentation of small images: pad, crop at random, perhaps mirror."""

from __future__ import annotations

from torch import nn


def padded_crop(size: int, padding: int, flip: bool) -> nn.Module:
    """Return a torchvision v2 transform that pads with zeros, crops to `size` and mirrors half of the images."""
    from torchvision.transforms import v2

    steps: list[nn.Module] = [v2.RandomCrop(size, padding=padding)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    compose: nn.Module = v2.Compose(steps)
    return compose

"""Augmentations of whole batches of images, on the device of the batch.

They have the names, arguments and pixels of `torchvision.transforms.v2`, but each draws the numbers
of all samples at once, as a function of seed, epoch and sample (`Draws`). Any torchvision v2
transform works as `data.augment`, too; it is then called image by image.
"""

from __future__ import annotations

from tutelage.data.transforms.base import BatchTransform, Compose
from tutelage.data.transforms.color import ColorJitter
from tutelage.data.transforms.draws import Draws
from tutelage.data.transforms.geometry import (
    PaddedCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
)
from tutelage.data.transforms.rand_augment import RandAugment

__all__ = [
    "BatchTransform",
    "ColorJitter",
    "Compose",
    "Draws",
    "PaddedCrop",
    "RandAugment",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
]

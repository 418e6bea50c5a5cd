"""Images in another size, grey or RGB: small ones for networks of large ones, or those of another data set to join."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.data.base import Data
from tutelage.data.image_set import ArraySet, ImageSet
from tutelage.errors import UserError


class Resized(Data):
    """A data set whose images are resized to a square, as CIFAR's are to 224 for networks that were made for ImageNet.

    Classes, cuts and normalisation are those of `data`.

    Args:
        data: the data set.
        size: side of the square in pixels.
        augment: True crops a random part, at random scale, out of the resized image and mirrors.
        smallest: smallest share of the image's area that a crop keeps.
    """

    def __init__(self, data: Data, size: int = 224, augment: bool | nn.Module = True, smallest: float = 0.08) -> None:
        if size < 1:
            raise UserError(f"data.size is the side of the images in pixels, at least 1, got {size}")
        self.data, self.size, self.augment, self.smallest = data, size, augment, smallest
        self.mean, self.std, self.validation = data.mean, data.std, data.validation

    @property
    def classes(self) -> list[str]:
        """The data's."""
        return self.data.classes

    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return the data's parts; images are resized when they are asked for."""
        train, validation, test = self.data.parts()
        return self._sized(train), validation and self._sized(validation), test and self._sized(test)

    def _sized(self, images: ImageSet) -> ImageSet:
        plain = images.part(torch.arange(len(images)), None, 0)
        return ResizedSet(plain, (plain.image(0).shape[0], self.size, self.size), None, 0)

    def standard_augmentation(self) -> nn.Module:
        """Crop at random scale and aspect, mirror: the augmentation of ImageNet recipes."""
        from torchvision.transforms import v2

        crop = v2.RandomResizedCrop(self.size, scale=(self.smallest, 1.0), antialias=True)
        compose: nn.Module = v2.Compose([crop, v2.RandomHorizontalFlip()])
        return compose


class ResizedSet(ImageSet):
    """Images brought to one shape before they are augmented.

    Args:
        images: the set, without augmentation.
        shape: (C, H, W).
        augment, seed: see `ImageSet`.
    """

    def __init__(self, images: ImageSet, shape: tuple[int, ...], augment: nn.Module | None, seed: int) -> None:
        super().__init__(images.labels, images.index, augment, seed)
        self.images, self.shape = images, shape

    def image(self, position: int) -> Tensor:
        """Return one image in the shape."""
        return reshaped(self.images.image(position), self.shape)

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ResizedSet:
        """Return the items at these positions, with another augmentation."""
        return ResizedSet(self.images.part(positions, None, 0), self.shape, augment, seed)


def resized(images: ImageSet, shape: tuple[int, ...]) -> ImageSet:
    """Return a set whose images have this shape (C, H, W); what lies in memory is resized at once."""
    plain = images.part(torch.arange(len(images)), None, 0)
    if isinstance(plain, ArraySet):
        return ArraySet(reshaped(plain.images, shape), plain.labels, plain.index)
    return ResizedSet(plain, shape, None, 0)


def reshaped(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images (..., C, H, W) in another size, and grey or RGB as `shape` (C, H, W) says.

    >>> reshaped(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), (3, 28, 28)).shape
    torch.Size([5, 3, 28, 28])

    Raises:
        UserError: channels other than 1 and 3 would have to change.
    """
    from torchvision.transforms.v2 import functional

    if images.shape[-3] != shape[0]:
        if {images.shape[-3], shape[0]} != {1, 3}:
            raise UserError(f"images of {images.shape[-3]} channels cannot join images of {shape[0]}; give grey or RGB")
        images = functional.rgb_to_grayscale(images, num_output_channels=shape[0])
    if tuple(images.shape[-2:]) != shape[1:]:
        images = functional.resize(images, list(shape[1:]), antialias=True)
    return images

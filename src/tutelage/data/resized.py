"""Images in another size, gray or RGB."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.data._augmentation import resized_crop
from tutelage.data._settings import check_side
from tutelage.data.dense import DenseSet
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_input import ImageInput
from tutelage.data.image_set import ArraySet, ImageSet
from tutelage.errors import UserError


class Resized(ImageData):
    """A data set whose images are resized to a square, such as CIFAR for networks made for 224².

    Classes, cuts and normalization are those of `data`.

    Args:
        data: the data set.
        size: side of the square in pixels.
        augment: True crops a random part, at random scale, out of the resized image and mirrors.
        smallest: smallest share of the image's area that a crop takes.
    """

    def __init__(
        self,
        data: ImageData,
        size: int = 224,
        augment: bool | nn.Module = True,
        smallest: float = 0.08,
    ) -> None:
        check_side(size)
        self.data = data
        self.size = size
        self.augment = augment
        self.smallest = smallest
        self.mean = data.mean
        self.std = data.std
        self.validation = data.validation

    @property
    def classes(self) -> list[str]:
        """The classes of `data`."""
        return self.data.classes

    def raw_splits(self) -> RawSplits:
        """Return the parts of `data`; images are resized when they are read."""
        train, validation, test = self.data.raw_splits()
        return (
            self._square(train),
            None if validation is None else self._square(validation),
            None if test is None else self._square(test),
        )

    def standard_augmentation(self) -> nn.Module:
        """Crop at random scale and aspect, mirror: the augmentation of ImageNet recipes."""
        return resized_crop(self.size, self.smallest)

    def _square(self, images: ImageSet) -> ImageSet:
        if len(images) == 0:  # refused by `splits`
            return images
        refuse_dense(images, type(self).__name__)
        plain = images.subset_with(torch.arange(len(images)), None, 0)
        channels = plain.image(0).shape[0]
        return ResizedSet(plain, (channels, self.size, self.size), None, 0)


class ResizedSet(ImageSet):
    """Images brought to one shape before they are augmented.

    Args:
        images: the set, without augmentation.
        shape: (C, H, W).
        augment: a torchvision v2 transform, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: ImageSet,
        shape: tuple[int, ...],
        augment: nn.Module | None,
        seed: int,
    ) -> None:
        super().__init__(images.labels, images.ids, augment, seed)
        self.images = images
        self.shape = shape

    @property
    def reads_files(self) -> bool:
        """Whether a batch is read from files."""
        return self.images.reads_files

    @property
    def files_digest(self) -> str | None:
        """What changes with a file that is read."""
        return self.images.files_digest

    def before_loading(self) -> None:
        """Make ready what loading processes share."""
        self.images.before_loading()

    def image(self, position: int) -> Tensor:
        """Return one image in the shape."""
        return reshaped(self.images.image(position), self.shape)

    def input_rule(self) -> ImageInput:
        """Return that an image is resized to the shape."""
        channels, height, width = self.shape
        return ImageInput(channels, (height, width), "stretch")

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ResizedSet:
        """Return the samples at these positions, with another augmentation."""
        images = self.images.subset_with(positions, None, 0)
        return ResizedSet(images, self.shape, augment, seed)


def refuse_dense(images: ImageSet, name: str) -> None:
    """Raise if images have boxes or masks, which would be lost.

    Args:
        images: a part of a data set.
        name: of what needs one label an image, for the message.

    Raises:
        UserError: If they have.
    """
    if isinstance(images, DenseSet):
        raise UserError(
            f"{name} takes images with one label each, and these have boxes or masks, which it "
            "would not move with them; give the data as it is, and let data.augment resize both"
        )


def resized(images: ImageSet, shape: tuple[int, ...]) -> ImageSet:
    """Return a set whose images have the shape (C, H, W), without augmentation.

    Images in memory are resized at once, others when they are read.
    """
    plain = images.subset_with(torch.arange(len(images)), None, 0)
    if isinstance(plain, ArraySet):
        return ArraySet(reshaped(plain.images, shape), plain.labels, plain.ids)
    return ResizedSet(plain, shape, None, 0)


def reshaped(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images (..., C, H, W) in another size, and gray or RGB as `shape` (C, H, W) says.

    >>> reshaped(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), (3, 28, 28)).shape
    torch.Size([5, 3, 28, 28])

    Raises:
        UserError: If channels other than 1 and 3 would have to change.
    """
    from torchvision.transforms.v2 import functional

    channels = images.shape[-3]
    if channels != shape[0]:
        if {channels, shape[0]} != {1, 3}:
            raise UserError(
                f"images of {channels} channels cannot join images of {shape[0]}; give gray or RGB"
            )
        images = functional.rgb_to_grayscale(images, num_output_channels=shape[0])
    if tuple(images.shape[-2:]) != shape[1:]:
        images = functional.resize(images, list(shape[1:]), antialias=True)
    return images

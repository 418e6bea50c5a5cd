"""Data sets of labeled images of any size, which are brought to one square."""

from __future__ import annotations

from torch import nn

from tutelage.data._augmentation import resized_crop
from tutelage.data._settings import check_share, check_side, check_statistics
from tutelage.data.file_set import MAX_SMALL
from tutelage.data.image_data import ImageData
from tutelage.data.transforms.geometry import PaddedCrop


class SquareImages(ImageData):
    """Images that are resized and cropped to squares, wherever they are stored.

    Args:
        size: side of the squares in pixels.
        validation: share of the training part that is held out where there is no such part.
        augment: as in `ImageFolder`.
        mean: per channel, of [0, 1] pixels.
        std: per channel, of [0, 1] pixels.

    Raises:
        UserError: If one of them is of another kind or out of range.
    """

    def __init__(
        self,
        size: int,
        validation: float,
        augment: bool | nn.Module,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        check_side(size)
        check_share("data.validation", validation, zero=True)
        check_statistics("data.mean", mean)
        check_statistics("data.std", std)
        self.size = size
        self.validation = validation
        self.augment = augment
        self.mean = mean
        self.std = std

    def standard_augmentation(self) -> nn.Module:
        """Return CIFAR's augmentation for small images, else that of ImageNet recipes."""
        if self.size <= MAX_SMALL:
            return PaddedCrop(self.size, padding=self.size // 8)
        return resized_crop(self.size)

"""scikit-learn's digits: 1797 real scans of 8×8 pixels, inside the package, nothing to download."""

from __future__ import annotations

import torch
from torch import nn

from tutelage.data.base import Data
from tutelage.data.image_set import ArraySet, ImageSet
from tutelage.data.padded_crop import padded_crop
from tutelage.errors import UserError


class Digits(Data):
    """UCI optical digits (E. Alpaydin, C. Kaynak), the test part that scikit-learn ships; cut 60/20/20.

    Args:
        augment: True crops after padding by one pixel.
    """

    mean, std = (0.306,), (0.376,)

    def __init__(self, augment: bool | nn.Module = False) -> None:
        self.augment = augment
        self.validation = 0.25  # of the 80 % that the test part leaves

    @property
    def classes(self) -> list[str]:
        """Zero to nine."""
        return [str(digit) for digit in range(10)]

    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return all images; the parts are cut from them."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise UserError("the digits come with scikit-learn: pip install tutelage[demo]") from error
        images, labels = load_digits(return_X_y=True)
        pixels = torch.tensor(images).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
        return ArraySet(pixels, torch.tensor(labels, dtype=torch.int64)), None, None

    def standard_augmentation(self) -> nn.Module:
        """Pad by one pixel and crop."""
        return padded_crop(8, 1, flip=False)

"""scikit-learn's digits: 1797 scans of 8×8 pixels, installed with the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.data._augmentation import PaddedCrop
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_set import ArraySet


class Digits(ImageData):
    """UCI optical digits (E. Alpaydin, C. Kaynak), the test part that scikit-learn ships.

    They are cut 60/20/20.

    Args:
        augment: True crops after padding by one pixel.
    """

    mean = (0.306,)
    std = (0.376,)

    def __init__(self, augment: bool | nn.Module = False) -> None:
        self.augment = augment
        self.validation = 0.25  # of the 80 % that the test part leaves

    @property
    def classes(self) -> list[str]:
        """Zero to nine."""
        return [str(digit) for digit in range(10)]

    def raw_splits(self) -> RawSplits:
        """Return all images; the parts are cut from them."""
        values, labels = _load()  # values are 0 to 16
        pixels = torch.tensor(values).mul(255 / 16).round().to(torch.uint8)
        images = pixels.view(-1, 1, 8, 8)
        return ArraySet(images, torch.tensor(labels, dtype=torch.int64)), None, None

    def standard_augmentation(self) -> nn.Module:
        """Pad by one pixel and crop."""
        return PaddedCrop(8, padding=1, flip=False)


def _load() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return pixels (1797, 64) and labels (1797,) from the file that scikit-learn installs.

    The file is read here because importing the library takes a second, at every start.
    """
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package is not None else None
    for folder in folders or ():
        file = Path(folder, "datasets/data/digits.csv.gz")
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits  # a version that keeps it elsewhere

    values, labels = load_digits(return_X_y=True)
    return values, labels

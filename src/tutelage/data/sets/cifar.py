"""CIFAR-10 and CIFAR-100 as torchvision downloads them: pickled batches, read without running them.

Only arrays and the containers around them are unpickled, so a manipulated file cannot run code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.data._files import require_folder
from tutelage.data._overlap import warn_array_copies
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_set import ArraySet
from tutelage.data.sets._cifar_pickle import FIX, read_batch
from tutelage.data.transforms.geometry import PaddedCrop
from tutelage.errors import UserError


class _Cifar(ImageData):
    """32×32 color images in pickled batches.

    Attributes:
        folder: in which torchvision stores them.
        train_files: the batches of the training part.
        test_files: the batches of the test part.
        label_key: of the labels in a batch.
        meta_file: the file that has the names of the classes.
        names_key: of the names in it.
    """

    folder: str
    train_files: Sequence[str]
    test_files: Sequence[str]
    label_key: bytes
    meta_file: str
    names_key: bytes

    def __init__(self, root: str, validation: float, augment: bool | nn.Module) -> None:
        self.root = root
        self.validation = validation
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """The names in the meta file."""
        path = self._folder() / self.meta_file
        names = read_batch(path).get(self.names_key)
        if not isinstance(names, list) or not all(isinstance(n, bytes | str) for n in names):
            raise UserError(f"{path} has no names of classes; {FIX}")
        return [n.decode(errors="replace") if isinstance(n, bytes) else n for n in names]

    def raw_splits(self) -> RawSplits:
        """Return the official training and test parts; validation is cut from training."""
        train, test = self._part(self.train_files), self._part(self.test_files)
        warn_array_copies(train.images, test.images, self._folder())
        return train, None, test

    def standard_augmentation(self) -> nn.Module:
        """Pad by four pixels, crop, mirror: the augmentation of the papers."""
        return PaddedCrop(32, padding=4, flip=True)

    def _folder(self) -> Path:
        name = type(self).__name__
        advice = f"run torchvision.datasets.{name}(root, download=True) once, and set data.root"
        root = require_folder(self.root, name, advice)
        folder = root / self.folder if (root / self.folder).is_dir() else root
        if not (folder / self.meta_file).is_file():
            raise UserError(
                f"{name} is not at {root}: it has no {self.folder}/{self.meta_file}; {advice}"
            )
        return folder

    def _part(self, names: Sequence[str]) -> ArraySet:
        folder = self._folder()
        pixels: list[np.ndarray[Any, Any]] = []
        labels: list[int] = []
        for name in names:
            batch = read_batch(folder / name)
            data = batch.get(b"data")
            own_labels = _whole_numbers(batch.get(self.label_key))
            if own_labels is None:
                key = self.label_key.decode()
                raise UserError(f"the {key!r} of {folder / name} are no list of numbers; {FIX}")
            if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
                raise UserError(f"{folder / name} has no images; {FIX}")
            if data.shape != (len(own_labels), 3 * 32 * 32):
                raise UserError(
                    f"{folder / name} has {len(own_labels)} labels for images of the shape "
                    f"{data.shape}; {FIX}"
                )
            pixels.append(data)
            labels += own_labels
        num_classes = len(self.classes)
        if labels and not 0 <= min(labels) <= max(labels) < num_classes:
            raise UserError(
                f"{folder} has labels from {min(labels)} to {max(labels)} for {num_classes} "
                f"classes; {FIX}"
            )
        images = torch.from_numpy(np.concatenate(pixels).reshape(-1, 3, 32, 32))
        return ArraySet(images, torch.tensor(labels, dtype=torch.int64))


def _whole_numbers(values: object) -> list[int] | None:
    """Return labels as a list; None if they are none."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        return None
    return values


class CIFAR10(_Cifar):
    """CIFAR-10 (Krizhevsky, 2009): 50 000 + 10 000 color 32×32 images, 10 classes.

    Args:
        root: holds cifar-10-batches-py/ (as torchvision downloads it).
        validation: share of the training part that is held out for validation.
        augment: True pads by four pixels, crops and mirrors.
    """

    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    folder = "cifar-10-batches-py"
    train_files = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_files = ("test_batch",)
    label_key = b"labels"
    meta_file = "batches.meta"
    names_key = b"label_names"

    def __init__(
        self, root: str, validation: float = 0.1, augment: bool | nn.Module = True
    ) -> None:
        super().__init__(root, validation, augment)


class CIFAR100(_Cifar):
    """CIFAR-100 (Krizhevsky, 2009): 50 000 + 10 000 color 32×32 images, 100 classes.

    Args:
        root: holds cifar-100-python/ (as torchvision downloads it).
        validation: share of the training part that is held out for validation.
        augment: True pads by four pixels, crops and mirrors.
    """

    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    folder = "cifar-100-python"
    train_files = ("train",)
    test_files = ("test",)
    label_key = b"fine_labels"
    meta_file = "meta"
    names_key = b"fine_label_names"

    def __init__(
        self, root: str, validation: float = 0.1, augment: bool | nn.Module = True
    ) -> None:
        super().__init__(root, validation, augment)

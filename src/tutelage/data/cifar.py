"""CIFAR-10 and CIFAR-100 as torchvision downloads them: pickled batches, read without running them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutelage.data.base import Data, existing
from tutelage.data.image_set import ArraySet, ImageSet
from tutelage.data.padded_crop import padded_crop
from tutelage.errors import UserError

SAFE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _OnlyArrays(pickle.Unpickler):
    """Reads dicts, lists, bytes and arrays; refuses anything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an image file")
        return super().find_class(module, name)


class _Cifar(Data):
    """32×32 colour images in pickled batches."""

    folder: str
    files: tuple[tuple[str, ...], tuple[str, ...]]
    label_key: bytes
    names: tuple[str, bytes]

    def __init__(self, root: str, validation: float, augment: bool | nn.Module) -> None:
        self.root, self.validation, self.augment = root, validation, augment

    @property
    def classes(self) -> list[str]:
        """The names in the meta file."""
        file, key = self.names
        names = _read(self._folder() / file)[key]
        return [name.decode() if isinstance(name, bytes) else name for name in names]

    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return the official training and test parts; validation is cut from the first."""
        train, test = (self._part(names) for names in self.files)
        return train, None, test

    def _folder(self) -> Path:
        name = type(self).__name__
        advice = f"run torchvision.datasets.{name}(root, download=True) once, and set data.root"
        root = existing(self.root, name, advice)
        folder = root / self.folder if (root / self.folder).is_dir() else root
        if not (folder / self.names[0]).is_file():
            raise UserError(f"{name} is not at {root}: it has no {self.folder}/{self.names[0]}; {advice}")
        return folder

    def _part(self, names: tuple[str, ...]) -> ArraySet:
        batches = [_read(self._folder() / name) for name in names]
        try:
            pixels = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
            labels = [label for batch in batches for label in batch[self.label_key]]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self._folder()} holds no {type(self).__name__} batches ({error}); download it again"
            ) from error
        return ArraySet(torch.from_numpy(np.ascontiguousarray(pixels)), torch.tensor(labels, dtype=torch.int64))

    def standard_augmentation(self) -> nn.Module:
        """Pad by four pixels, crop, mirror: the augmentation of the papers."""
        return padded_crop(32, 4, flip=True)


class CIFAR10(_Cifar):
    """CIFAR-10 (Krizhevsky, 2009): 50 000 + 10 000 colour 32×32 images, 10 classes.

    Args:
        root: holds cifar-10-batches-py/ (as torchvision downloads it).
        validation: share of the training part that is kept for choosing.
        augment: True pads by four pixels, crops and mirrors.
    """

    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    folder, label_key, names = "cifar-10-batches-py", b"labels", ("batches.meta", b"label_names")
    files = (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",))

    def __init__(self, root: str, validation: float = 0.1, augment: bool | nn.Module = True) -> None:
        super().__init__(root, validation, augment)


class CIFAR100(_Cifar):
    """CIFAR-100 (Krizhevsky, 2009): 50 000 + 10 000 colour 32×32 images, 100 classes.

    Args:
        root: holds cifar-100-python/ (as torchvision downloads it).
        validation: share of the training part that is kept for choosing.
        augment: True pads by four pixels, crops and mirrors.
    """

    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    folder, label_key, names = "cifar-100-python", b"fine_labels", ("meta", b"fine_label_names")
    files = (("train",), ("test",))

    def __init__(self, root: str, validation: float = 0.1, augment: bool | nn.Module = True) -> None:
        super().__init__(root, validation, augment)


def _read(path: Path) -> dict[bytes, Any]:
    try:
        content: Any = _OnlyArrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read as a CIFAR batch ({error}); download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no CIFAR batch; download it again")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}

"""Fashion-MNIST and MNIST: IDX files, gzipped or not, as torchvision or Debian store them."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data._files import require_folder
from tutelage.data._overlap import warn_array_copies
from tutelage.data._text import MEGABYTE, is_file
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_set import ArraySet
from tutelage.data.transforms.geometry import PaddedCrop
from tutelage.errors import UserError

MAX_BYTES = 1024 * MEGABYTE  # of images; EMNIST, the largest, has 525


class _IdxData(ImageData):
    """28×28 gray images in four IDX files.

    Attributes:
        folder: in which torchvision stores them.
        advice: how to get the files.
        flip: whether a mirrored image has the same class.
    """

    folder: str
    advice: str
    flip: bool

    def __init__(self, root: str, validation: float, augment: bool | nn.Module) -> None:
        self.root = root
        self.validation = validation
        self.augment = augment

    def raw_splits(self) -> RawSplits:
        """Return the official training and test parts; validation is cut from training."""
        root = require_folder(self.root, type(self).__name__, self.advice)
        train, test = self._read(root, "train"), self._read(root, "t10k")
        warn_array_copies(train.images, test.images, root)
        return train, None, test

    def standard_augmentation(self) -> nn.Module:
        """Pad by two pixels, crop, and mirror where that keeps the class."""
        return PaddedCrop(28, padding=2, flip=self.flip)

    def _read(self, root: Path, prefix: str) -> ArraySet:
        images = read_idx(self._file(root, f"{prefix}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(self._file(root, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
        if len(images) != len(labels):
            raise UserError(
                f"{root} holds {len(images)} {prefix} images but {len(labels)} labels; install it "
                "again"
            )
        if tuple(images.shape[1:]) != (28, 28):
            height, width = images.shape[1:]
            raise UserError(
                f"{root} holds {prefix} images of {width}×{height} pixels instead of 28×28; "
                "install it again"
            )
        if len(labels) > 0 and int(labels.max()) >= len(self.classes):
            raise UserError(
                f"{root} holds the {prefix} label {int(labels.max())}, but there are "
                f"{len(self.classes)} classes (0 to {len(self.classes) - 1}); install it again"
            )
        return ArraySet(images.unsqueeze(1), labels.long())

    def _file(self, root: Path, name: str) -> Path:
        for folder in (root, root / self.folder / "raw", root / "raw"):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.exists():
                    return path
        raise UserError(f"{type(self).__name__} at {root} lacks {name}[.gz]; {self.advice}")


class FashionMNIST(_IdxData):
    """Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017; MIT).

    60 000 + 10 000 gray 28×28 images of clothes, 10 classes.

    Args:
        root: holds the four files (as Debian's dataset-fashion-mnist), or FashionMNIST/raw/ (as
            torchvision downloads it).
        validation: share of the 60 000 that is held out for validation.
        augment: True pads by two pixels, crops and mirrors.
    """

    mean = (0.2860,)
    std = (0.3530,)
    folder = "FashionMNIST"
    flip = True
    advice = (
        "apt-get install dataset-fashion-mnist, or run "
        "torchvision.datasets.FashionMNIST(root, download=True) once, and set data.root"
    )

    def __init__(
        self,
        root: str = "/usr/share/datasets/fashion-mnist",
        validation: float = 0.1,
        augment: bool | nn.Module = False,
    ) -> None:
        super().__init__(root, validation, augment)

    @property
    def classes(self) -> list[str]:
        """T-shirt to ankle boot."""
        return [
            "t-shirt",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle-boot",
        ]


class MNIST(_IdxData):
    """MNIST (LeCun, Cortes, Burges): 60 000 + 10 000 gray 28×28 digits.

    Args:
        root: holds the four files, or MNIST/raw/ (as torchvision downloads it).
        validation: share of the 60 000 that is held out for validation.
        augment: True pads by two pixels and crops.
    """

    mean = (0.1307,)
    std = (0.3081,)
    folder = "MNIST"
    flip = False
    advice = "run torchvision.datasets.MNIST(root, download=True) once, and set data.root"

    def __init__(
        self, root: str, validation: float = 0.1, augment: bool | nn.Module = False
    ) -> None:
        super().__init__(root, validation, augment)

    @property
    def classes(self) -> list[str]:
        """Zero to nine."""
        return [str(digit) for digit in range(10)]


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in .gz.

    Args:
        path: of the file.
        dimensions: how many the tensor should have.

    Raises:
        UserError: If it is no such file, or shorter than its header says.
    """
    # The header: two zeros, 8 for unsigned bytes, the number of dimensions, and each size as a
    # big-endian number of four bytes.
    header = 4 * (dimensions + 1)
    if not is_file(path):
        raise UserError(f"{path} is no regular file; install the data again")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            beginning = file.read(header)
            shape = [int.from_bytes(beginning[i : i + 4], "big") for i in range(4, header, 4)]
            is_idx = beginning[:4] == bytes([0, 0, 8, dimensions]) and len(beginning) == header
            size = math.prod(shape)
            # No more is unpacked than the header says, whatever the file grows to.
            content = file.read(size + 1) if is_idx and size <= MAX_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); is the file complete?") from error
    if not is_idx or len(content) != size:
        raise UserError(
            f"{path} is no whole IDX file of {dimensions} dimensions; install the data again"
        )
    if size == 0:  # `frombuffer` takes no empty buffer
        return torch.zeros(shape, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(*shape)

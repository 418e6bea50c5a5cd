"""Fashion-MNIST and MNIST: the IDX files, gzipped or not, as torchvision or Debian lay them out."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.base import Data, existing
from tutelage.data.image_set import ArraySet, ImageSet
from tutelage.data.padded_crop import padded_crop
from tutelage.errors import UserError


class _IdxData(Data):
    """28×28 grey images in four IDX files."""

    folder: str
    advice: str
    flip: bool

    def __init__(self, root: str, validation: float, augment: bool | nn.Module) -> None:
        self.root, self.validation, self.augment = root, validation, augment

    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return the official training and test parts; validation is cut from the first."""
        root = existing(self.root, type(self).__name__, self.advice)
        train, test = (self._read(root, prefix) for prefix in ("train", "t10k"))
        return train, None, test

    def _read(self, root: Path, prefix: str) -> ArraySet:
        images = read_idx(self._file(root, f"{prefix}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(self._file(root, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
        if len(images) != len(labels):
            raise UserError(f"{root} holds {len(images)} {prefix} images but {len(labels)} labels; install it again")
        return ArraySet(images.unsqueeze(1), labels.long())

    def _file(self, root: Path, name: str) -> Path:
        for folder in (root, root / self.folder / "raw", root / "raw"):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
        raise UserError(f"{type(self).__name__} at {root} lacks {name}[.gz]; {self.advice}")

    def standard_augmentation(self) -> nn.Module:
        """Pad by two pixels, crop, and mirror where that keeps the class."""
        return padded_crop(28, 2, self.flip)


class FashionMNIST(_IdxData):
    """Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017; MIT): 60 000 + 10 000 grey 28×28 images of clothes, 10 classes.

    Args:
        root: holds the four files (as Debian's dataset-fashion-mnist), or FashionMNIST/raw/ (as torchvision
            downloads it).
        validation: share of the 60 000 that is kept for choosing.
        augment: True pads by two pixels, crops and mirrors.
    """

    mean, std = (0.2860,), (0.3530,)
    folder, flip = "FashionMNIST", True
    advice = (
        "apt-get install dataset-fashion-mnist, or run torchvision.datasets.FashionMNIST(root, download=True) once, "
        "and set data.root"
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
        return ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]


class MNIST(_IdxData):
    """MNIST (LeCun, Cortes, Burges): 60 000 + 10 000 grey 28×28 digits.

    Args:
        root: holds the four files, or MNIST/raw/ (as torchvision downloads it).
        validation: share of the 60 000 that is kept for choosing.
        augment: True pads by two pixels and crops.
    """

    mean, std = (0.1307,), (0.3081,)
    folder, flip = "MNIST", False
    advice = "run torchvision.datasets.MNIST(root, download=True) once, and set data.root"

    def __init__(self, root: str, validation: float = 0.1, augment: bool | nn.Module = False) -> None:
        super().__init__(root, validation, augment)

    @property
    def classes(self) -> list[str]:
        """Zero to nine."""
        return [str(digit) for digit in range(10)]


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in .gz.

    Raises:
        UserError: it is no such file, or shorter than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); is the file complete?") from error
    header = 4 * (dimensions + 1)
    sizes: Sequence[int] = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    count = 1
    for size in sizes:
        count *= size
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + count:
        raise UserError(f"{path} is no whole IDX file of {dimensions} dimensions; install the data again")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).view(*sizes)

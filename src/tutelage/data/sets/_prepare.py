"""Data sets that are made on disk from installed packages, once for each choice of settings."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from tutelage.data.image_data import ImageData
from tutelage.errors import UserError

# Black, blue, orange, green and pink, for looking at the masks.
PALETTE = [0, 0, 0, 86, 180, 233, 230, 159, 0, 0, 158, 115, 204, 121, 167]


class PreparedData(ImageData):
    """A data set that is made when it is first asked for, and then stays on disk.

    Attributes:
        name: of the data set, the beginning of its folder's name.
        root: the folder in which a folder for these settings is made.
    """

    name: ClassVar[str]
    root: str

    @property
    @abstractmethod
    def settings(self) -> object:
        """The settings that the files depend on; other settings have another folder."""

    @abstractmethod
    def prepare(self, folder: Path) -> Path:
        """Make the files in a new folder, unless it exists, and return the folder."""

    @property
    def folder(self) -> Path:
        """Where the files of these settings are."""
        return Path(self.root).expanduser() / f"{self.name}-{settings_key(self.settings)}"


def build_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder that is complete or does not exist.

    Args:
        folder: to make; one that exists is left as it is.
        write: fills a folder of a temporary name, which is renamed afterwards.

    Returns:
        The folder.
    """
    if folder.exists():
        return folder
    temporary = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.replace(folder)
    return folder


def settings_key(settings: object) -> str:
    """Return eight characters that differ between settings.

    >>> settings_key((256, 0)) == settings_key((256, 0))
    True
    >>> settings_key((256, 0)) == settings_key((256, 1))
    False
    """
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def package_folder(name: str, advice: str) -> Path:
    """Return the folder of an installed package without importing it.

    Args:
        name: of the package.
        advice: how to install it, for the message.

    Raises:
        UserError: If it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {name} is not installed, and the data lies in it; {advice}")
    return Path(spec.origin).parent


def write_image_and_mask(root: Path, name: str, image: Tensor, mask: Tensor) -> None:
    """Write one sample in the layout of PASCAL VOC, as `read_mask_part` reads it.

    Args:
        root: of the layout.
        name: of the sample.
        image: uint8 (H, W), or (H, W, 3).
        mask: uint8 (H, W).
    """
    from PIL import Image

    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.numpy()).save(root / "JPEGImages" / f"{name}.png")
    classes = Image.fromarray(mask.numpy())
    # All 256 colors, since with fewer the file would have fewer bits a pixel.
    classes.putpalette(PALETTE + [255] * (768 - len(PALETTE)))
    classes.save(root / "SegmentationClass" / f"{name}.png")


def write_part_list(root: Path, part: str, names: Sequence[str]) -> None:
    """Write which samples belong to a part, in the layout of PASCAL VOC."""
    path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))

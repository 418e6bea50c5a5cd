"""Data sets that are made on disk from installed packages, once for each choice of settings."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from tqdm import tqdm

from tutelage.data._settings import check_root
from tutelage.data.image_data import ImageData
from tutelage.errors import UserError
from tutelage.io import read_json, write_json

RECORD = "prepared.json"  # in a prepared folder: what its files depend on
HAS_LOCKS = importlib.util.find_spec("fcntl") is not None  # not so in Windows
WAIT = 0.2  # seconds between two tries to lock
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
        check_root(self.root)
        return Path(self.root).expanduser() / f"{self.name}-{settings_key(self.settings)}"


def build_folder(folder: Path, settings: Mapping[str, Any], write: Callable[[Path], None]) -> Path:
    """Make a folder that is complete or does not exist.

    Of several processes that want it at once, one makes it and the others wait. One that is killed
    leaves a folder of a temporary name, which the next one removes.

    Args:
        folder: to make; one that was made with these settings is left as it is.
        settings: all that the files depend on, as JSON can hold it; stored in the folder.
        write: fills a folder of a temporary name, which is renamed afterwards.

    Returns:
        The folder.

    Raises:
        UserError: If the folder was made with other settings, or not by this function.
    """
    if os.path.lexists(folder):
        return _checked(folder, settings)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder) as is_locked:
        if os.path.lexists(folder):  # another process has made it meanwhile
            return _checked(folder, settings)
        if is_locked:
            _remove_leftovers(folder)
        temporary = Path(tempfile.mkdtemp(prefix=_temporary_prefix(folder), dir=folder.parent))
        try:
            new = temporary / folder.name
            new.mkdir()  # `mkdtemp` makes a folder for its owner alone
            write(new)
            write_json(new / RECORD, settings)
            _move(new, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return _checked(folder, settings)


def _checked(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Return a folder that exists, if it was made with these settings."""
    record = folder / RECORD
    if not record.is_file():
        raise UserError(
            f"{folder} exists and holds no prepared data ({RECORD} is missing); remove it, or "
            "choose another folder"
        )
    made_with = read_json(record, f"remove {folder}, and it is prepared anew")
    if made_with != json.loads(json.dumps(settings)):  # a tuple has become a list
        raise UserError(
            f"{folder} was prepared with {_listed(made_with)}, now it is {_listed(settings)}; "
            "remove it, or choose another folder"
        )
    return folder


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Wait until no other process makes this folder; gives whether the system has locks.

    The system releases the lock of a process that ends, however it ends.
    """
    path = folder.with_name(f".{folder.name}.lock")
    descriptor = _open_locked(path, folder)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # Removed before it is released: whoever waits for it looks for a new file.
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _open_locked(path: Path, folder: Path) -> int | None:
    """Return the descriptor of the locked file; None if the system has no locks."""
    if not HAS_LOCKS:
        return None
    import fcntl

    has_said = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not has_said:
                owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                tqdm.write(f"waiting for {folder}, which {owner or 'a process'} makes", sys.stderr)
                has_said = True
            os.close(descriptor)
            time.sleep(WAIT)
            continue
        except OSError:
            os.close(descriptor)
            return None
        if _is_same_file(descriptor, path):
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)  # its owner has removed it just before


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _temporary_prefix(folder: Path) -> str:
    return f".{folder.name}.unfinished-"


def _remove_leftovers(folder: Path) -> None:
    for path in folder.parent.iterdir():
        if path.name.startswith(_temporary_prefix(folder)):
            shutil.rmtree(path, ignore_errors=True)


def _move(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError:
        # Without locks another process may have made it meanwhile, whole.
        if not folder.is_dir():
            raise


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

"""Squares of decoded images, kept in memory or on disk, and shared by all loading processes."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tutelage.cache.stored_rows import Rows, StoredRows
from tutelage.data._files import decode_image
from tutelage.data.transforms.geometry import resize
from tutelage.errors import UserError
from tutelage.io import user_cache

CHUNK = 256  # images that are decoded between two updates of the progress bar
ANNOUNCED_BYTES = 2**20  # fewer are not worth a line


class MemorySquares:
    """Squares that are decoded when they are first read, in memory that processes share.

    The memory is an anonymous map: processes that are forked share it, and it is no file in
    /dev/shm, which is small in containers. Pages that are never written take no memory.

    Args:
        paths: of the images.
        side: of the squares.
    """

    def __init__(self, paths: Sequence[str], side: int) -> None:
        self.paths = paths
        self.side = side
        self._images: Tensor | None = None
        self._is_done: Tensor | None = None

    def make(self) -> None:
        """Reserve the memory; a process that is forked later shares it.

        Raises:
            UserError: If the machine has less memory.
        """
        if self._images is not None:
            return
        shape = (len(self.paths), 3, self.side, self.side)
        size = math.prod(shape)
        total = _physical_memory()
        if total is not None and size > total:
            raise UserError(
                f"data.decode memory: {len(self.paths)} images of {self.side} pixels take "
                f"{_shown(size)} and this machine has {_shown(total)}; set data.decode to disk"
            )
        self._images = torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8).view(shape)
        self._is_done = torch.frombuffer(mmap.mmap(-1, len(self.paths)), dtype=torch.uint8)

    def rows(self, numbers: Tensor) -> Tensor:
        """Return squares (N, 3, side, side) uint8; those not decoded yet are decoded now."""
        self.make()
        assert self._images is not None
        assert self._is_done is not None
        for number in numbers[self._is_done[numbers] == 0].tolist():
            self._images[number] = square(decode_image(Path(self.paths[number])), self.side)
            self._is_done[number] = 1  # last: another process may read it
        return self._images[numbers]

    def __getstate__(self) -> dict[str, Any]:
        # A process that is not forked has a memory of its own.
        return {**self.__dict__, "_images": None, "_is_done": None}


class DiskSquares:
    """Squares that are decoded before the first of them is read, in a memory-mapped file.

    The file lies in the user's cache folder, under a name that says which images it is of; one that
    was interrupted is gone on with, and images that have changed get another file.

    Args:
        paths: of the images.
        side: of the squares.
        digest: of the paths, sizes and times of the images.
    """

    def __init__(self, paths: Sequence[str], side: int, digest: str) -> None:
        self.paths = paths
        self.side = side
        self.digest = digest
        self._images: Tensor | None = None

    def make(self) -> None:
        """Decode all images, unless that was done before.

        Raises:
            UserError: If an image cannot be decoded, or there is no room for the file.
        """
        if self._images is not None:
            return
        name = hashlib.blake2b(f"{self.digest} {self.side}".encode(), digest_size=12).hexdigest()
        stored = StoredRows(
            folder=user_cache() / "decoded",
            name=f"images-{self.side}-{name}",
            fingerprint={"side": self.side},
            digest=self.digest,
            ids=self.paths,
        )
        images = stored.open()
        if images is None:
            size = len(self.paths) * 3 * self.side**2
            print(
                f"decoding {len(self.paths)} images to {self.side} pixels once, {_shown(size)} in "
                f"{stored.array}",
                file=sys.stderr,
                flush=True,
            )
            try:
                images = stored.make(self._decoded, (3, self.side, self.side), "uint8")
            except OSError as error:
                raise UserError(
                    f"decoded images cannot be stored in {stored.folder} ({error}); make room, set "
                    "XDG_CACHE_HOME to another folder, or set data.decode to none"
                ) from error
        self._images = images

    def rows(self, numbers: Tensor) -> Tensor:
        """Return squares (N, 3, side, side) uint8."""
        self.make()
        assert self._images is not None
        return self._images[numbers]

    def _decoded(self, done: int) -> Rows:
        """Give numbers and squares from this image on."""

        def decode(number: int) -> Tensor:
            return square(decode_image(Path(self.paths[number])), self.side)

        bar = tqdm(
            total=len(self.paths),
            initial=done,
            unit="image",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )
        with bar, ThreadPoolExecutor(_num_cpus()) as pool:
            for numbers in _chunks(done, len(self.paths)):
                yield torch.tensor(numbers), torch.stack(list(pool.map(decode, numbers)))
                bar.update(len(numbers))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_images": None}  # mapped again by the process that gets it


def square(image: Tensor, side: int) -> Tensor:
    """Return the middle of an image (C, H, W), whose shorter side is resized to `side`.

    >>> square(torch.zeros(3, 40, 30, dtype=torch.uint8), 16).shape
    torch.Size([3, 16, 16])
    """
    height, width = image.shape[-2:]
    if min(height, width) != side:
        short = min(height, width)
        # The longer side is cut down to whole pixels, as torchvision's `resize` does.
        height, width = (side * height // short, side * width // short)
        image = resize(image, (height, width))
    top = round((height - side) / 2)
    left = round((width - side) / 2)
    return image[:, top : top + side, left : left + side]


def announce_memory(count: int, side: int) -> None:
    """Say how much memory decoded images will take."""
    size = count * 3 * side**2
    if size >= ANNOUNCED_BYTES:
        print(
            f"keeping {count} decoded images of {side} pixels in memory, {_shown(size)}",
            file=sys.stderr,
            flush=True,
        )


def _chunks(start: int, end: int) -> Iterator[list[int]]:
    for first in range(start, end, CHUNK):
        yield list(range(first, min(first + CHUNK, end)))


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _num_cpus() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() or 1 if affinity is None else len(affinity(0))


def _physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None

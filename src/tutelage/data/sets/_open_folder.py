"""What is read of folders with very many images, and how they are opened for it."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class ImageColumns:
    """Images that were found, in three columns.

    Attributes:
        paths: of every image.
        sizes: in bytes; -1 for a file that is missing.
        times: of the last change in nanoseconds; -1 for a file that is missing.
    """

    paths: list[str] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))


@contextmanager
def opened(folder: str) -> Iterator[str | int]:
    """Open a folder, so that the system need not follow its path again for every file in it."""
    if os.scandir not in os.supports_fd:
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def identity(folder: str) -> tuple[int, int]:
    """Return device and number of a folder, which are the same by any path to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino

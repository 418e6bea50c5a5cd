"""Images that are in the training part and in another one, too."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

WHOLE = 65536  # bytes up to which a whole file is compared
PIECE = 4096  # bytes from the middle of a larger file


def warn_shared(
    train: Sequence[Path], other: Sequence[Path], where: str, by_content: bool = True
) -> None:
    """Say in one warning how many images of a part are in the training part, too.

    Args:
        train: images of the training part.
        other: images of the other part.
        where: names both parts, for the message.
        by_content: whether copies count; without, only links to the same file do.
    """
    known = {_file_number(path) for path in train}
    shared = [path for path in other if _file_number(path) in known]
    if by_content and not shared:
        # Files of different sizes differ, so that few have to be read.
        sizes = {os.path.getsize(path) for path in other}
        contents = {_content(path) for path in train if os.path.getsize(path) in sizes}
        train_sizes = {content[0] for content in contents}
        candidates = [path for path in other if os.path.getsize(path) in train_sizes]
        shared = [path for path in candidates if _content(path) in contents]
    if shared:
        warnings.warn(
            f"{where}: {len(shared)} images are in both, such as {shared[0]}, so that figures are "
            "better than they should be; take them out of one",
            stacklevel=3,
        )


def _file_number(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _content(path: Path) -> tuple[int, bytes]:
    """Return the size of a file, and a hash of its bytes or of those in its middle."""
    size = os.path.getsize(path)
    with path.open("rb") as file:
        if size > WHOLE:
            file.seek(size // 2)
        return size, hashlib.blake2b(file.read(PIECE if size > WHOLE else WHOLE)).digest()

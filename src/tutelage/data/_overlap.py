"""Images that are in the training part and in another one, too, or twice in one part."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from torch import Tensor

CHUNK = 1000  # files that a thread looks at in one go
PIECE = 4096  # bytes from the middle of a file, which are compared first
BLOCK = 2**20  # bytes that are hashed at once
# Files of so few bytes hold one color or little more, and are equal without being copies.
SIMPLE = 200
# Share of images in memory that may be copies: CIFAR-100, as it is published, has a few.
PUBLISHED_COPIES = 0.01

PartT = TypeVar("PartT")
Member = tuple[int, Path]
"""Which part, and an image of it."""


def warn_shared(train: Sequence[Path], other: Sequence[Path], where: str) -> None:
    """Say in one warning how many images of a part are in the training part, too.

    Links to the same file count, and copies of it under any name.

    Args:
        train: images of the training part.
        other: images of the other part.
        where: names both parts, for the message.
    """
    groups = _equal_files([train, other], lambda group: len({part for part, _ in group}) > 1)
    shared = [path for group in groups for part, path in group if part == 1]
    if shared:
        warnings.warn(
            f"{where}: {len(shared)} images are in both, such as {min(shared)}, so that figures "
            "are better than they should be; take them out of one",
            stacklevel=3,
        )


def warn_repeated(images: Sequence[Path], where: str) -> None:
    """Say in one warning how many images of a part are in it more than once.

    Args:
        images: of the part.
        where: names it, for the message.
    """
    groups = _equal_files([images], lambda group: len(group) > 1)
    if groups:
        (_, first), (_, second), *_ = groups[0]
        count = sum(len(group) - 1 for group in groups)
        warnings.warn(
            f"{where}: {count} images are there more than once, such as {first}, which is "
            f"{second}, too; what is cut from that part would have copies in it, so that figures "
            "are better than they should be: take them out",
            stacklevel=3,
        )


def warn_array_copies(train: Tensor, test: Tensor, root: Path) -> None:
    """Warn of images that are in the training part twice, or in the test part, too.

    As many as published data sets have are passed over, and images of one color.

    Args:
        train: images of the training part, (N, …).
        test: images of the test part, (M, …).
        root: names the data set, for the messages.
    """
    hashes = _hashes(train)
    known = set(hashes)
    repeated = len(hashes) - len(known)
    shared = sum(image in known for image in _hashes(test))
    for count, part, what in (
        (repeated, train, "training part in {}: {} of {} images are in it twice"),
        (shared, test, "training and test part in {}: {} of {} images are in both"),
    ):
        if count > PUBLISHED_COPIES * len(part):
            warnings.warn(
                f"{what.format(root, count, len(part))}, so that figures are better than they "
                "should be; get the files again",
                stacklevel=3,
            )


def warn_copies(parts: Mapping[str, Sequence[Path]], root: Path | str) -> None:
    """Warn of images that are in the training part twice, or in another part, too.

    Args:
        parts: images by the name of their part, the training part first.
        root: names the data set, for the messages.
    """
    (train, images), *others = parts.items()
    warn_repeated(images, f"{train} of {root}")
    for name, paths in others:
        warn_shared(images, paths, f"{train} and {name} of {root}")


def read_parts(
    names: tuple[str, str | None, str | None],
    read: Callable[[str, bool], PartT],
    paths_of: Callable[[PartT], Sequence[Path]],
    root: Path | str,
) -> tuple[PartT, PartT | None, PartT | None]:
    """Return the parts that have a name, and warn of images that are in two of them.

    Args:
        names: of training, validation and test; None for a part that is cut from another one.
        read: returns a part by its name; it is also given whether that is the training part.
        paths_of: returns the images of a part.
        root: names the data set, for the messages.
    """
    train = read(names[0], True)
    validation, test = (None if name is None else read(name, False) for name in names[1:])
    parts = zip(names, (train, validation, test), strict=True)
    warn_copies({str(name): paths_of(part) for name, part in parts if part is not None}, root)
    return train, validation, test


def _hashes(images: Tensor) -> list[int]:
    """Return a number for each image of more than one color, equal for equal ones."""
    flat = images.flatten(1)
    several_colors = (flat != flat[:, :1]).any(dim=1)
    return [hash(image.tobytes()) for image in flat[several_colors].numpy()]


def _equal_files(
    parts: Sequence[Sequence[Path]], is_wanted: Callable[[Sequence[Member]], bool]
) -> list[list[Member]]:
    """Return the groups of equal files that are wanted.

    Files of different sizes differ, so that few have to be read, and fewer as a whole.
    """
    members = [(number, path) for number, part in enumerate(parts) for path in part]
    groups: list[list[Member]] = []
    for key_of in (_size, _piece, _content):
        by_key: dict[Hashable, list[Member]] = {}
        for member, key in zip(members, _keys(members, key_of), strict=True):
            by_key.setdefault(key, []).append(member)
        groups = [group for group in by_key.values() if is_wanted(group)]
        members = [member for group in groups for member in group]
    return groups


def _keys(members: Sequence[Member], key_of: Callable[[Path], Hashable]) -> list[Hashable]:
    """Return what is equal for equal files; it is their path for those that cannot be read."""

    def of_chunk(start: int) -> list[Hashable]:
        keys: list[Hashable] = []
        for _, path in members[start : start + CHUNK]:
            try:
                keys.append(key_of(path))
            except OSError:
                keys.append(path)
        return keys

    with ThreadPoolExecutor() as pool:
        chunks = list(pool.map(of_chunk, range(0, len(members), CHUNK)))
    return [key for chunk in chunks for key in chunk]


def _size(path: Path) -> Hashable:
    """Return the size of a file; of a simple one also which file it is, as links are equal."""
    status = os.stat(path)
    if status.st_size > SIMPLE:
        return status.st_size
    return status.st_size, status.st_dev, status.st_ino


def _piece(path: Path) -> Hashable:
    size = _size(path)
    if not isinstance(size, int):
        return size
    with path.open("rb") as file:
        file.seek(max(0, size - PIECE) // 2)
        return size, hashlib.blake2b(file.read(PIECE)).digest()


def _content(path: Path) -> Hashable:
    size = _size(path)
    if not isinstance(size, int):
        return size
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return size, digest.digest()

"""Where the files of tar shards begin, so that any of them can be read by itself.

A tar file is a row of headers and contents without compression: once the headers are read, an image
is one read at a known place.
"""

from __future__ import annotations

import json
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tutelage.data.sets._image_tree import ENDINGS
from tutelage.data.stored_set import ImageStore
from tutelage.errors import UserError

LABEL_ENDINGS = ("cls", "label", "txt", "json")  # in the order of being preferred
MAX_LABEL_BYTES = 2**20
FIX = "write shards as webdataset does, such as 000001.jpg and 000001.cls, one after the other"


@dataclass
class Shard:
    """What one tar file holds: for every image its name, place, length and label."""

    names: list[str]
    places: array[int]
    lengths: array[int]
    labels: list[str]
    skipped: int


class TarStore(ImageStore):
    """The images of tar files.

    Args:
        paths: of the tar files.
        shards: what they hold.
    """

    def __init__(self, paths: Sequence[Path], shards: Sequence[Shard]) -> None:
        self.paths = [str(path) for path in paths]
        self.names = [name for shard in shards for name in shard.names]
        self.shard_of = array("l")
        self.places = array("q")
        self.lengths = array("q")
        for number, shard in enumerate(shards):
            self.shard_of.extend([number] * len(shard.names))
            self.places.extend(shard.places)
            self.lengths.extend(shard.lengths)

    def content(self, number: int) -> bytes:
        """Return the content of an image file."""
        path = self.paths[self.shard_of[number]]
        try:
            # Opened for every image: an open file must not be shared with data loading processes.
            with open(path, "rb") as file:
                file.seek(self.places[number])
                return file.read(self.lengths[number])
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); check the file") from error

    def name(self, number: int) -> str:
        """Return what an image is called in messages."""
        return f"{self.names[number]} in {self.paths[self.shard_of[number]]}"


def read_shards(paths: Sequence[Path], label_key: str) -> list[Shard]:
    """Return what tar files hold, in their order; several are read at a time.

    Args:
        paths: of the tar files.
        label_key: of the label in a sample's .json.

    Raises:
        UserError: If one is no tar file or is compressed, or a sample has no image or no label.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: _read(path, label_key), paths))


def _read(path: Path, label_key: str) -> Shard:
    shard = Shard([], array("q"), array("q"), [], 0)
    try:
        with tarfile.open(path, "r:") as file:
            for members in _samples(file):
                image = next((m for ending, m in members.items() if f".{ending}" in ENDINGS), None)
                if image is None:
                    shard.skipped += 1
                    continue
                ending = next((ending for ending in LABEL_ENDINGS if ending in members), None)
                if ending is None:
                    raise UserError(
                        f"{image.name} in {path} has no label ({', '.join(LABEL_ENDINGS)}); {FIX}"
                    )
                stream = file.extractfile(members[ending])
                content = b"" if stream is None else stream.read(MAX_LABEL_BYTES)
                where = f"{members[ending].name} in {path}"
                shard.names.append(image.name)
                shard.places.append(image.offset_data)
                shard.lengths.append(image.size)
                shard.labels.append(_label(content, ending, label_key, where))
    except tarfile.TarError as error:
        raise UserError(
            f"{path} cannot be read as an uncompressed tar file ({error}); unpack .gz first, since "
            "images in it are read in any order"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the file") from error
    return shard


def _samples(file: tarfile.TarFile) -> Iterator[dict[str, tarfile.TarInfo]]:
    """Give the files of each sample by ending: neighbors of one name up to the first point."""
    current = None
    members: dict[str, tarfile.TarInfo] = {}
    for member in file:
        folder, _, base = member.name.rpartition("/")
        if not member.isfile() or base.startswith("."):
            continue
        stem, _, ending = base.partition(".")
        if (folder, stem) != current:
            if members:
                yield members
            current = (folder, stem)
            members = {}
        members[ending.lower()] = member
    if members:
        yield members


def _label(content: bytes, ending: str, label_key: str, where: str) -> str:
    try:
        text = content.decode("utf-8").strip()
        if ending == "json":
            value = json.loads(text)
            text = str(value[label_key]) if isinstance(value, dict) and label_key in value else ""
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no label in UTF-8 ({error}); {FIX}") from error
    if not text:
        raise UserError(f"{where} holds no label; {FIX}, or set data.label_key")
    return text

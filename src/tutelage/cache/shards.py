"""The rows of a teacher's outputs in files, which several processes can write.

    <output>-00000.safetensors   rows 0 to R - 1 with their ids and views
    <output>-00001.safetensors   rows R to 2 R - 1, ...

Each file says in its header of which cache, output and rows it is, and the checksum of all of it.
It is written under a temporary name and renamed, so a file that is there is whole; what an
interrupted process has not written is computed by the next one. A file that is cut, flipped, or of
something else is refused by name, never made again in silence.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from tutelage.errors import UserError
from tutelage.io import write_tensors

SHARD_BYTES = 2**25
VERSION = "1"


@dataclass(frozen=True)
class Shards:
    """The files of one output.

    Attributes:
        folder: of the cache.
        cache: the digest of what the outputs depend on.
        output: name of the output, as its layer's address; "" is the teacher's output itself.
        num_rows: of all files.
        per_shard: rows of a file; the last one may have fewer.
    """

    folder: Path
    cache: str
    output: str
    num_rows: int
    per_shard: int

    def __len__(self) -> int:
        """Return the number of files."""
        return -(-self.num_rows // self.per_shard)

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{file_name(self.output)}-{shard:05d}.safetensors"

    def rows(self, shard: int) -> range:
        """Return the numbers of a shard's rows."""
        start = shard * self.per_shard
        return range(start, min(start + self.per_shard, self.num_rows))

    def missing(self) -> list[int]:
        """Return the shards that are not there."""
        return [shard for shard in range(len(self)) if not self.path(shard).is_file()]

    def write(self, shard: int, tensors: Mapping[str, Tensor], errors: Mapping[str, float]) -> None:
        """Write a shard.

        Args:
            shard: its number.
            tensors: with a row for each of the shard's.
            errors: what storing did to the values.
        """
        header = {**self._header(shard), "errors": json.dumps(errors)}
        header["crc32"] = checksum(tensors, header)
        write_tensors(self.path(shard), dict(tensors), header)

    def read(self, shard: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the tensors of a shard, mapped into memory, and what storing did to them.

        Raises:
            UserError: If the file is not whole, damaged, or of something else.
        """
        path = self.path(shard)
        fix = "remove it to make it anew, or give another teacher.cache_dir"
        try:
            with safe_open(path, "pt") as file:
                header: dict[str, str] = file.metadata() or {}
            tensors = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path} is not whole ({error}); {fix}") from error
        for key, wanted in self._header(shard).items():
            if header.get(key) != wanted:
                raise UserError(
                    f"{path} is of another {_WORDS[key]} ({header.get(key)} and not {wanted}); "
                    f"{fix}"
                )
        rows = len(self.rows(shard))
        texts = {key: text for key, text in header.items() if key != "crc32"}
        if header.get("crc32") != checksum(tensors, texts) or any(
            len(tensor) != rows for tensor in tensors.values()
        ):
            raise UserError(f"{path} is damaged: its checksum is another one; {fix}")
        errors: dict[str, float] = json.loads(header["errors"])
        return tensors, errors

    def _header(self, shard: int) -> dict[str, str]:
        rows = self.rows(shard)
        return {
            "version": VERSION,
            "cache": self.cache,
            "output": self.output,
            "rows": f"{rows.start} to {rows.stop - 1} of {self.num_rows}",
        }


_WORDS = {
    "version": "version",
    "cache": "teacher or other data",
    "output": "output",
    "rows": "range of rows",
}


def file_name(output: str) -> str:
    """Return the beginning of the names of an output's files.

    >>> file_name(""), file_name("layer3"), file_name("backbone[p3]")
    ('output', 'layer-layer3', 'layer-backbone_p3_-ef50785d')
    """
    if not output:
        return "output"
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", output)
    # Two addresses must not have one name.
    mark = "" if plain == output else f"-{zlib.crc32(output.encode()):08x}"
    return f"layer-{plain}{mark}"


def checksum(tensors: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """Return the CRC-32 of all tensors, with their names, types and shapes, and of some texts."""
    value = zlib.crc32(json.dumps(texts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        described = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        value = zlib.crc32(described, value)
        value = zlib.crc32(tensor.detach().cpu().contiguous().numpy().data, value)
    return f"{value:08x}"

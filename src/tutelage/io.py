"""Atomic file writes: write to a temporary file, then rename; and reading JSON.

The temporary file lies in a folder of its own, made beside the final file under a random name and
for its owner alone. Making a folder is exclusive and follows no link, so nobody who may write to
the same place can plant a link there, and two processes never share a temporary file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tutelage.errors import UserError

MAX_JSON = 2**30  # bytes; what a program wrote about a run is far smaller
# What a process that was killed while it wrote leaves behind: `.metrics.json.5f2a90c1d3b7e684.tmp`.
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp")


def user_cache() -> Path:
    """Return the folder for what can be made again: `tutelage` in the user's cache folder.

    That is `XDG_CACHE_HOME`, or else `~/.cache`. It need not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tutelage"


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in place of `~`.

    >>> expanded("runs/flowers").as_posix()
    'runs/flowers'

    Raises:
        UserError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"the home folder of {str(path)!r} is not known; write it out") from error


def temporary_folder(path: Path) -> Path:
    """Make a folder of a random name beside `path`, readable by its owner alone."""
    while True:
        folder = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of processes that were killed; none may be writing there."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if is_temporary(path):
            shutil.rmtree(path, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Return whether a path has the name of a temporary folder."""
    return TEMPORARY.fullmatch(path.name) is not None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary file, which becomes `path` at the end of the block.

    The new file is on the disk before it gets its name, and its mode is that of any new file. After
    an error in the block there is neither a new file nor a temporary one.
    """
    folder = temporary_folder(path)
    temporary = folder / path.name
    try:
        yield temporary
        settle(temporary)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(path.parent)


def settle(path: Path) -> None:
    """Give a new file the mode that the umask leaves, and wait until it is on the disk."""
    # Some writers, safetensors' among them, make files for the owner alone.
    with suppress(PermissionError):  # a file system without modes
        path.chmod(0o666 & ~_umask())
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are written as such."""
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of the file.
        fix: what to do about a damaged file; it ends the error message.

    Raises:
        UserError: If the file is missing, no regular file or not a JSON object.
    """
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UserError(f"{path} is missing, or no file; {fix}")
    try:
        if path.stat().st_size > MAX_JSON:
            raise UserError(f"{path} has {path.stat().st_size} bytes, more than it can have; {fix}")
        result = json.loads(path.read_text(encoding="utf-8"))
    except UserError:
        raise
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        raise UserError(f"{path} is not whole ({error}); {fix}") from error
    if not isinstance(result, dict):
        raise UserError(f"{path} holds a JSON {type(result).__name__} and no object; {fix}")
    return result


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors atomically; tied tensors are stored one by one.

    Equal tensors and texts give equal bytes.

    Args:
        path: of the file.
        tensors: by name.
        metadata: texts for its header.
    """
    separate = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with atomic(path) as temporary:
        save_file(separate, temporary, metadata)
        if metadata:
            _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Sort the texts in a header, which safetensors writes in another order each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError(f"the header of {path} takes {len(text)} bytes and not {size}")
        file.seek(8)
        file.write(text.ljust(size))  # as safetensors fills up a header


def _umask() -> int:
    """Return the umask; Linux tells it without setting it, which other threads would feel."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

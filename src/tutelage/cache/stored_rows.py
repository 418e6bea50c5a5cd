"""Rows of a teacher's outputs on disk: a memory-mapped array, ids, and what they depend on.

    <name>.npy           (n, ...), float32, float16 or uint8, one row an item; mapped into memory
    <name>.ids.json      the id of each row
    <name>.json          fingerprint of the network, digests of items and ids, count, dtype, shape
    <name>.npy.partial   while it is being made, with <name>.progress.json beside it

The items may be anything with ids, texts or images; the fingerprint is whatever the network's
outputs depend on. Rows that do not fit what is asked for are refused by name, never made again in
silence: they may have cost hours.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.io import atomic, read_json, settle, sync_folder, write_json

VERSION = 1
SAVE_EVERY = 1024  # rows
Dtype = Literal["float32", "float16", "uint8"]
Rows = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StoredRows:
    """The rows of one collection in a folder.

    Attributes:
        folder: of the files.
        name: of the collection; no path.
        fingerprint: of the network, as JSON can hold it.
        digest: of the items and their ids.
        ids: of the rows, in order.
    """

    folder: Path
    name: str
    fingerprint: Mapping[str, Any]
    digest: str
    ids: Sequence[str]

    @property
    def array(self) -> Path:
        """The file of the array."""
        return self.folder / f"{self.name}.npy"

    @property
    def record(self) -> Path:
        """The file that says what the rows depend on."""
        return self.folder / f"{self.name}.json"

    def open(self) -> Tensor | None:
        """Return the rows, mapped into memory and not copied; None if they are not there yet.

        Raises:
            UserError: If they are of another network, of other items, damaged, or of another
                version. The message names the file and what differs.
        """
        if not self.array.exists():
            return None
        if not self.record.is_file():
            raise UserError(f"{self.array} has no {self.record.name} beside it; {self._fix}")
        record = read_json(self.record, self._fix)
        self._check(record)
        try:
            array = np.load(self.array, mmap_mode="c", allow_pickle=False)
            ids = json.loads((self.folder / f"{self.name}.ids.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.array} is not whole ({error}); {self._fix}") from error
        if [str(array.dtype), *array.shape[1:]] != [record.get("dtype"), *record.get("shape", [])]:
            raise UserError(
                f"{self.array} has {array.dtype} rows of shape {array.shape[1:]}, unlike what "
                f"{self.record.name} says; {self._fix}"
            )
        if len(array) != len(self.ids) or ids != list(self.ids):
            raise UserError(f"{self.array} has rows of other ids than the data; {self._fix}")
        return torch.from_numpy(array)

    def make(
        self,
        compute: Callable[[int], Rows],
        shape: Sequence[int],
        dtype: Dtype = "float32",
    ) -> Tensor:
        """Compute the rows, store and return them; go on where an earlier try was interrupted.

        Args:
            compute: gives row numbers and values in an order that is always the same; it is given
                how many rows are done.
            shape: of one row.
            dtype: in which they are stored.

        Raises:
            UserError: If an unfinished array is of something else, or a value is not finite.
            OSError: If there is no room for the rows, or the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{self.name}.lock"):
            rows = self.open()  # another process may have made them meanwhile
            return self._make(compute, shape, dtype) if rows is None else rows

    def _make(self, compute: Callable[[int], Rows], shape: Sequence[int], dtype: Dtype) -> Tensor:
        partial = self.folder / f"{self.name}.npy.partial"
        progress = self.folder / f"{self.name}.progress.json"
        record = {
            "version": VERSION,
            "fingerprint": json.loads(json.dumps(self.fingerprint)),
            "digest": self.digest,
            "ids": ids_digest(self.ids),
            "count": len(self.ids),
            "shape": list(shape),
            "dtype": dtype,
        }
        done = _rows_done(partial, progress, record)
        full = (len(self.ids), *shape)
        mode: Literal["r+", "w+"] = "r+" if done else "w+"
        array = np.lib.format.open_memmap(partial, mode=mode, dtype=np.dtype(dtype), shape=full)
        if not done:  # what was computed before has its room
            _take_room(partial)
        saved = done
        for numbers, values in compute(done):
            if not bool(values.isfinite().all()):
                raise UserError(
                    f"the teacher gives NaN or infinity for {self.ids[int(numbers[0])]!r}, or for "
                    f"another item of its batch, on the way to {self.array}; check its weights"
                )
            array[numbers.numpy()] = values.cpu().numpy()
            done += len(numbers)
            if done - saved >= SAVE_EVERY:
                array.flush()
                write_json(progress, {**record, "done": done})
                saved = done
        array.flush()
        del array
        with atomic(self.folder / f"{self.name}.ids.json") as file:
            file.write_text(json.dumps(list(self.ids)), encoding="utf-8")
        settle(partial)
        write_json(self.record, record)
        partial.replace(self.array)  # last: with it the rows are there
        sync_folder(self.folder)
        progress.unlink(missing_ok=True)
        rows = self.open()
        assert rows is not None
        return rows

    def _check(self, record: Mapping[str, Any]) -> None:
        """Raise if what a record says is not what is asked for."""
        if record.get("version") != VERSION:
            raise UserError(
                f"{self.record} is of version {record.get('version')}, this is {VERSION}; "
                f"{self._fix}"
            )
        stored = record.get("fingerprint")
        wanted = json.loads(json.dumps(self.fingerprint))
        if stored != wanted:
            stored = stored if isinstance(stored, dict) else {}
            other_dtype = {**wanted, "dtype": stored.get("dtype")}
            if stored == other_dtype:
                raise UserError(
                    f"{self.array} holds {stored.get('dtype')} numbers and not "
                    f"{wanted.get('dtype')}; give the dtype that it has, or {self._fix}"
                )
            differing = _differences(stored, wanted)
            raise UserError(f"{self.array} was made by another teacher: {differing}; {self._fix}")
        if record.get("digest") != self.digest:
            raise UserError(
                f"{self.array} holds {record.get('count')} rows of other items than the "
                f"{len(self.ids)} of the data (their content, ids or order differ); {self._fix}"
            )

    @property
    def _fix(self) -> str:
        return f"remove {self.folder / self.name}.* to make it anew, or give another folder"


def _take_room(path: Path) -> None:
    """Give a file the room of its size; writing into a map of a full disk would kill the process.

    Raises:
        OSError: If there is not so much.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error


def ids_digest(ids: Sequence[str]) -> str:
    """Return what changes with an id or their order, for those who have no items at hand."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def _rows_done(partial: Path, progress: Path, record: Mapping[str, Any]) -> int:
    """Return how many rows an interrupted try has left.

    Raises:
        UserError: If it was a try at something else, which may have taken hours.
    """
    if not (partial.is_file() and progress.is_file()):
        return 0
    fix = f"remove {progress} to begin anew, or give another folder"
    left = read_json(progress, fix)
    done = left.pop("done", 0)
    if left != record:
        raise UserError(f"{partial} was begun otherwise: {_differences(left, record)}; {fix}")
    return int(done)


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [key for key in {**stored, **wanted} if stored.get(key) != wanted.get(key)]
    return ", ".join(f"{key} {stored.get(key)!r} and not {wanted.get(key)!r}" for key in keys)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make rows; on systems without locks, all at once."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that writes into {path.parent}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""One run at a time in a folder: a lock file that names its owner's host and process.

The operating system holds the lock for the process and drops it when the process ends, in whatever
way, so the lock of a dead owner is free; that holds across the machines of a network file system
too. Where files cannot be locked, the owner's host and process number decide.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tutelage.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
FIRST_WRITE_SECONDS = 1.0

_held: set[str] = set()  # the lock files of this process


@dataclass(frozen=True)
class Owner:
    """A process that has a lock.

    Attributes:
        host: its machine.
        pid: its number there.
        started: when it was started, in the system's own units; "" where that is not known.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Owner:
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), _start_time(os.getpid()))

    def may_live(self) -> bool:
        """Return False if the process is known to have ended."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it is another user's
            return True
        # Numbers are given again, and in a container every run may have the same one.
        return self.started == _start_time(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class FolderInUseError(UserError):
    """Another process runs in `folder`; `owner` is it, or None if it has not said so yet."""

    def __init__(self, folder: Path, owner: Owner | None) -> None:
        name = "another process" if owner is None else str(owner)
        super().__init__(
            f"{folder} is in use by {name}; wait until that has ended, or choose another --out"
        )
        self.folder = folder
        self.owner = owner

    @property
    def owner_name(self) -> str:
        """What to call the owner."""
        return "another process" if self.owner is None else str(self.owner)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have a folder for this process alone; the lock file is gone afterwards.

    Args:
        folder: it exists.

    Raises:
        FolderInUseError: If a living process, this one included, has it.
    """
    path = folder / LOCK
    key = os.path.realpath(path)
    if key in _held:  # the system would give this process its own lock once more
        raise FolderInUseError(folder, Owner.this())
    descriptor = _acquire(folder, path)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        with suppress(OSError):  # the folder may be gone, or another's by now
            if _is_file_of(descriptor, path):
                path.unlink()
        os.close(descriptor)


def living_owner(folder: Path) -> Owner | None:
    """Return which other process says to have a folder, unless it is known to have ended.

    Nothing is locked. For a message only: the answer may be out of date.
    """
    path = folder / LOCK
    # To close the file would also end this process's own lock on it.
    if os.path.realpath(path) in _held:
        return None
    try:
        owner = _parse(path.read_bytes())
    except OSError:
        return None
    return owner if owner is not None and owner.may_live() else None


def _acquire(folder: Path, path: Path) -> int:
    """Return the descriptor of the lock file, locked and with this process as the owner."""
    while True:
        try:
            descriptor = os.open(path, _flags() | os.O_EXCL, 0o666)
            is_new = True
        except FileExistsError:
            descriptor = os.open(path, _flags(), 0o666)
            is_new = False
        try:
            if not _lock(descriptor, is_new):
                raise FolderInUseError(folder, _read(descriptor))
            # Its owner may have removed the file between our opening and locking it.
            if _is_file_of(descriptor, path):
                _write(descriptor, Owner.this())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, is_new: bool) -> bool:
    """Lock a file; return False if another process has it."""
    if fcntl is not None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return False
                raise
    if is_new:
        return True
    owner = _read(descriptor)
    if owner is None:  # its owner is about to write its name, or was killed before that
        time.sleep(FIRST_WRITE_SECONDS)
        owner = _read(descriptor)
    return owner is None or not owner.may_live()


def _flags() -> int:
    # Windows has none of these, and no links to guard against.
    return os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def _write(descriptor: int, owner: Owner) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(asdict(owner)).encode() + b"\n")


def _read(descriptor: int) -> Owner | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return _parse(os.read(descriptor, 4096))


def _parse(content: bytes) -> Owner | None:
    try:
        value = json.loads(content)
        return Owner(str(value["host"]), int(value["pid"]), str(value["started"]))
    except (ValueError, KeyError, TypeError):
        return None


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Return whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _start_time(pid: int) -> str:
    """Return when a process was started, in ticks since the machine was; "" if not known."""
    try:
        # The name, in parentheses, may hold spaces; the start time is the 20th field after it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""

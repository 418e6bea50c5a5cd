"""Count the file-system operations of a process below a folder, and let one of them fail."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

# `full` is a full disk from the operation on, where removing still works.
Fault = Literal["kill", "torn", "full"]
NAMES = ("open", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync", "chmod")
NEEDS_SPACE = ("open", "mkdir", "write")


class Operations:
    """Counts what changes files below a folder; at operation number `at` the fault happens.

    Args:
        folder: operations elsewhere do not count.
        at: the number of the operation, from 1; 0 for none.
        fault: `kill` ends the process before it, `torn` writes half of something first.
    """

    def __init__(self, folder: Path, at: int = 0, fault: Fault = "kill") -> None:
        self.folder = str(folder)
        self.at = at
        self.fault = fault
        self.count = 0

    def install(self) -> None:
        """Replace the functions of `os` and `io.open`, for the rest of this process."""
        for name in NAMES:
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        opened = io.open
        wrapped = self._wrapped("write", opened)

        def open_file(file: Any, mode: str = "r", *rest: Any, **keywords: Any) -> Any:
            writes = any(letter in mode for letter in "wax+")
            return (wrapped if writes else opened)(file, mode, *rest, **keywords)

        io.open = open_file
        builtins.open = open_file

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self._is_ours(name, arguments, keywords):
                self.count += 1
                self._fail(name, arguments)
            return function(*arguments, **keywords)

        return call

    def _is_ours(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
        if name == "fsync" or keywords.get("dir_fd") is not None:  # `rmtree` works with those
            return True
        if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
            return False
        return isinstance(arguments[0], (str, Path)) and str(arguments[0]).startswith(self.folder)

    def _fail(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.fault == "full":
            if 0 < self.at <= self.count and name in NEEDS_SPACE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        elif self.count == self.at:
            if self.fault == "torn" and name == "write":
                with Path(arguments[0]).open("ab", buffering=0) as file:
                    file.write(b'{"epoch": 7, "step": 7, "terms": {"task": 1}')
            os.kill(os.getpid(), signal.SIGKILL)

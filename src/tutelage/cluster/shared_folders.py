"""Whether the machines of a cluster see the folders of a study."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SharedFolders:
    """Folders with a file in each by which another machine can tell that it sees the same.

    Attributes:
        working: the working folder, which relative paths start from.
        marks: the files.
    """

    working: Path
    marks: Sequence[Path]

    def problem(self) -> str | None:
        """Return why this machine cannot run what needs the folders; None if it can."""
        host = socket.gethostname()
        if not self.working.is_dir():
            return (
                f"{host} has no folder {self.working}, which relative paths of the study start "
                "from; start the study in a folder that all machines of the cluster share"
            )
        for mark in self.marks:
            if not mark.is_file():
                return (
                    f"{host} does not see {mark.parent} as the study does; choose a folder on "
                    "storage that all machines of the cluster share"
                )
        return None


@contextmanager
def shared_folders(folders: Sequence[Path]) -> Iterator[SharedFolders]:
    """Mark folders within the block; those made for it are removed if nothing else is in them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name, shared_folders([Path(name, "a/b")]) as shared:
    ...     print(shared.problem(), len(list(Path(name, "a/b").iterdir())))
    None 1
    """
    made: list[Path] = []
    marks: list[Path] = []
    try:
        for folder in folders:
            # Not resolved: another machine may have the same path by other links.
            path = Path(os.path.abspath(folder))
            made += [part for part in (path, *path.parents) if not part.exists()]
            path.mkdir(parents=True, exist_ok=True)
            mark = path / f".seen-{secrets.token_hex(8)}"
            mark.touch()
            marks.append(mark)
        yield SharedFolders(Path.cwd(), marks)
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)
        for path in sorted(made, reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

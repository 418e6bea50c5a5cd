"""The commit of a result is read, and nothing is written for that."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tutelage.provenance import _commit

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b.c"]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_read_without_writing_to_the_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    assert _commit(tmp_path) is None
    git("init")
    file = tmp_path / "file"
    file.write_text("a")
    git("add", "file")
    git(*IDENTITY, "commit", "-m", "first")
    os.utime(file, (1, 1))  # `git status` alone would now write the new time to its index
    index = (tmp_path / ".git/index").read_bytes()
    commit = _commit(tmp_path)
    assert commit is not None
    assert len(commit) == 12
    assert (tmp_path / ".git/index").read_bytes() == index
    file.write_text("b")
    assert _commit(tmp_path) == f"{commit}+changes"

"""Who has a folder: this process, another that lives, one that has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.engine import lock
from tutelage.engine.lock import LOCK, FolderInUseError, Owner, living_owner, locked

HOLDER = """
import sys, time
from pathlib import Path
from tutelage.engine import lock
if sys.argv[2] == "no-fcntl":
    lock.fcntl = None
with lock.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def holder(folder: Path, kind: str = "fcntl") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), kind], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


@pytest.mark.parametrize("kind", ["fcntl", "no-fcntl"])
def test_a_living_owner_is_named_and_a_dead_one_makes_way(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "no-fcntl":  # a system, or a file system, that cannot lock
        monkeypatch.setattr(lock, "fcntl", None)
    with holder(tmp_path, kind) as process:
        with pytest.raises(FolderInUseError, match=f"is in use by process {process.pid} on "):
            locked(tmp_path).__enter__()
        assert living_owner(tmp_path) == Owner(
            os.uname().nodename, process.pid, lock._start_time(process.pid)
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK).exists()
    assert living_owner(tmp_path) is None
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_this_process_has_it_once(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(FolderInUseError):
            locked(tmp_path).__enter__()
        assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass


def test_a_number_that_was_given_again_is_no_owner(tmp_path: Path) -> None:
    own = Owner.this()
    assert own.may_live()
    assert not Owner(own.host, own.pid, own.started + "0").may_live()
    assert Owner("elsewhere", own.pid, "").may_live()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00", b'{"host": 1}'])
def test_a_damaged_lock_of_nobody_is_taken(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "FIRST_WRITE_SECONDS", 0.0)
    for fcntl in (lock.fcntl, None):
        monkeypatch.setattr(lock, "fcntl", fcntl)
        (tmp_path / LOCK).write_bytes(content)
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=LOCK):
        locked(folder).__enter__()
    assert (tmp_path / "victim").read_text() == "precious"

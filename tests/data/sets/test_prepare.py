"""Folders that several processes prepare at once, or that a killed process leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage import UserError
from tutelage.data.sets._prepare import build_folder

# Writes a file, says so, and goes on when its input has a line.
SLOW = """
import sys
from pathlib import Path
from tutelage.data.sets._prepare import build_folder

def write(folder):
    (folder / "first").touch()
    print("begun", flush=True)
    sys.stdin.readline()
    (folder / "second").write_text(sys.argv[2])

build_folder(Path(sys.argv[1]), {"size": int(sys.argv[3])}, write)
print("made", flush=True)
"""


def start(folder: Path, name: str, size: int = 8) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder), name, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_process_prepares_and_the_others_wait(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = start(folder, "first")
    assert first.stdout.readline() == "begun\n"
    second = start(folder, "second")
    waiting = second.stderr.readline()
    assert waiting.startswith(f"waiting for {folder}, which process {first.pid} on ")
    assert not folder.exists()
    assert first.communicate("\n")[0] == "made\n"
    assert second.communicate("\n")[0] == "made\n"  # without having begun
    assert (first.returncode, second.returncode) == (0, 0)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["first", "prepared.json", "second"]
    assert (folder / "second").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_one_that_waited_for_other_settings_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    first = start(folder, "first")
    assert first.stdout.readline() == "begun\n"
    second = start(folder, "second", size=4)
    assert second.stderr.readline().startswith("waiting for ")
    first.communicate("\n")
    out, error = second.communicate("\n")
    assert out == ""
    assert second.returncode != 0
    assert f"{folder} was prepared with size 8, now it is size 4; remove it, or choose" in error
    assert (folder / "second").read_text() == "first"


def test_other_settings_and_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    def prepare(name: str, **settings: object) -> Path:
        return build_folder(tmp_path / name, settings, lambda new: None)

    assert prepare("data", size=8, parts=("a", "b")) == tmp_path / "data"
    assert prepare("data", parts=("a", "b"), size=8) == tmp_path / "data"
    for settings in ({"size": 9, "parts": ["a", "b"]}, {"size": 8}, {}):
        with pytest.raises(UserError, match=r"was prepared with size 8, parts \['a', 'b'\], now"):
            prepare("data", **settings)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        with pytest.raises(UserError, match=f"{name} exists and holds no prepared data"):
            prepare(name, size=8)
    (tmp_path / "data/prepared.json").write_text("[")
    with pytest.raises(UserError, match="and it is prepared anew"):
        prepare("data", size=8)


@pytest.mark.usefixtures("signals_arrive")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_nothing_half_whole(number: int, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    killed = start(folder, "killed")
    assert killed.stdout.readline() == "begun\n"
    killed.send_signal(number)
    killed.communicate()
    assert not folder.exists()
    build_folder(folder, {}, lambda new: (new / "whole").touch())
    assert sorted(path.name for path in folder.iterdir()) == ["prepared.json", "whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_mode_is_that_of_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    build_folder(tmp_path / "deep/data", {}, lambda new: None)
    assert os.stat(tmp_path / "deep/data").st_mode == os.stat(tmp_path / "other").st_mode

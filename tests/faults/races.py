"""Two processes that start at once and need the same: one does the work, and it is done once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.faults.runs import DONE, end_of, start
from tests.helpers.runs import make_recipe
from tutelage import Baseline
from tutelage.data.sets._prepare import build_folder
from tutelage.engine import teacher_run
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.teacher_run import TeacherRun

DELAYS = (0.0, 0.0, 0.01, 0.1)  # seconds between the two starts
FILES = 50


def start_both(action: Callable[[], int], draw: random.Random) -> list[int]:
    """Start an action in two processes; return how they ended, the better one first."""
    pids = []
    for _ in range(2):
        pids.append(start(action))
        time.sleep(draw.choice(DELAYS))
    return sorted(end_of(pid) for pid in pids)


def teacher_races(folder: Path, draw: random.Random, many: int) -> Iterator[str]:
    """Let two processes need one teacher that is not trained; give "" or what went wrong."""
    for number in range(many):
        out = folder / f"teacher{number}"
        codes = start_both(lambda out=out: _train_teacher(out), draw)
        epochs = [record["epoch"] for record in RunFolder(out).records()]
        problem = "" if epochs == [1, 2] else f"epochs {epochs}"
        yield problem if codes == [DONE, DONE] else f"the two ended with {codes}"


def preparation_races(folder: Path, draw: random.Random, many: int) -> Iterator[str]:
    """Let two processes prepare one data set; give "" or what went wrong."""
    for number in range(many):
        root = folder / f"prepared{number}"
        root.mkdir()
        codes = start_both(lambda root=root: _prepare(root), draw)
        names = [path.name for path in root.iterdir()]
        count = len(list(root.glob("data/*.txt")))
        problem = "" if (names, count) == (["data"], FILES) else f"left {names}, {count} files"
        yield problem if codes == [DONE, DONE] else f"the two ended with {codes}"


def _train_teacher(out: Path) -> int:
    torch.set_num_threads(1)
    teacher_run.WAIT_SECONDS = 0.02
    run = TeacherRun("teacher.yaml", "tiny\n", out, lambda: make_recipe(Baseline(), None))
    return DONE if run.train() else -1


def _prepare(root: Path) -> int:
    def write(new: Path) -> None:
        for number in range(FILES):
            (new / f"{number}.txt").write_text("x" * 100)

    build_folder(root / "data", {"size": 8}, write)
    return DONE

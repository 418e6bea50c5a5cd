"""One run of a parsed recipe."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tutelage.engine import fit
from tutelage.engine.lock import FolderInUseError
from tutelage.engine.teacher_run import TeacherRun
from tutelage.errors import UserError
from tutelage.io import write_json
from tutelage.recipes import ParsedRecipe

POLL_SECONDS = 0.5


def is_main_process() -> bool:
    """Whether this is rank 0 of what `accelerate launch` or `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def train_run(
    parsed: ParsedRecipe,
    out: Path,
    *,
    resume: bool,
    teachers: Sequence[TeacherRun],
    wait: float = 0.0,
) -> dict[str, Any] | None:
    """Run a recipe and return its metrics, or None if it was interrupted and can be resumed.

    Args:
        parsed: the recipe.
        out: folder of the run.
        resume: go on from the newest checkpoint.
        teachers: runs that its teachers' weights come from; missing ones are trained first.
        wait: seconds to wait for another process that runs in `out`.

    Raises:
        UserError: As `fit`. The message names the recipe if teachers had to be trained, since it
            can be about the student's or about a teacher's.
    """
    missing = [teacher for teacher in teachers if not teacher.ready]
    until = time.monotonic() + wait
    try:
        while True:
            recipe = parsed.build()
            try:
                return fit(recipe, out, resume=resume, text=parsed.text(), teacher_runs=teachers)
            except FolderInUseError:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL_SECONDS)
    except UserError as error:
        if missing:
            raise UserError(f"{parsed.name}: {error}") from error
        raise


def write_memory(out: Path) -> None:
    """Write the peak memory of this process to memory.json.

    Nothing is written where the system does not report it.
    """
    peaks = {}
    status = Path("/proc/self/status")  # getrusage would start at the peak of the parent
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM"):
            peaks["peak_mib"] = int(line.split()[1]) / 1024
    if torch.cuda.is_available():
        peaks["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    if peaks:
        write_json(out / "memory.json", peaks)

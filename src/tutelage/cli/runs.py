"""One run from a parsed recipe: what could not be trained leaves nothing behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tutelage.cli.recipes import Parsed
from tutelage.engine import fit
from tutelage.engine.files import write_json
from tutelage.engine.rehearse import forget_precision
from tutelage.engine.run_folder import RunFolder
from tutelage.errors import UserError


def is_first() -> bool:
    """Whether this process speaks for all that `accelerate launch` or `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def train_run(parsed: Parsed, out: Path, resume: bool) -> dict[str, Any] | None:
    """Run a recipe and return its figures, or None when it was interrupted and can be resumed.

    A folder that this call made is removed again when an error comes before the first epoch is over.

    Raises:
        UserError: as `fit`, or a checkpoint cannot be read.
    """
    folder, text = RunFolder(out), parsed.text()
    folder.check(text, resume)
    if resume and folder.finished:
        return folder.metrics()
    fresh = not (out / "recipe.yaml").exists()
    made = [place for place in out.absolute().parents if not place.exists()]
    recipe = parsed.build()
    forget_precision()
    try:
        return fit(recipe, out, resume=resume, text=text)
    except SafetensorError as error:
        if "deserializing" in str(error):
            raise UserError(f"{folder.checkpoints} cannot be read ({error}); remove it to start again") from error
        raise UserError(f"{out} cannot be written ({error}); make room, and add --resume to go on") from error
    except BaseException:
        if fresh:
            folder.forget()
            _remove_empty(made)
        raise


def write_memory(out: Path) -> None:
    """Write memory.json: the most memory that this process had, for a process that made this run and nothing else.

    Nothing is written where the system does not tell.
    """
    status = Path("/proc/self/status")  # getrusage would start at the peak of the parent
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    found = {"peak_mib": peaks[0]} if peaks else {}
    if torch.cuda.is_available():
        found["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    if found:
        write_json(out / "memory.json", found)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it holds something, or was never made
            folder.rmdir()

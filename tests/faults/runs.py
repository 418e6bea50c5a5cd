"""Tiny runs in child processes, and whether one ended as the undisturbed run does."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from tests.helpers.patience import Patience
from tests.helpers.runs import make_recipe
from tutelage import Baseline, UserError
from tutelage.cli import _signals_as_ctrl_c
from tutelage.engine import fit
from tutelage.engine.run_folder import RunFolder

DONE = 0
CRASHED = 1
REFUSED = 2
FULL = 3
INTERRUPTED = 130


def tiny_run(out: Path, epochs: int = 2) -> int:
    """Run in this process, resuming what is there; return how it ended."""
    torch.set_num_threads(1)
    recipe = make_recipe(Baseline(), None, epochs=epochs, ema_decay=0.9)
    recipe.num_labels = 100
    try:
        with _signals_as_ctrl_c():
            metrics = fit(recipe, out, resume=True, text="tiny\n")
    except UserError:
        return REFUSED
    except OSError:
        return FULL
    except KeyboardInterrupt:
        return INTERRUPTED
    return INTERRUPTED if metrics is None else DONE


def start(action: Callable[[], int]) -> int:
    """Start an action in a child process, and return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        stderr = os.dup(2)
        os.dup2(devnull, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = action()
        except BaseException:
            os.dup2(stderr, 2)
            traceback.print_exc()
    finally:
        os._exit(code)


def end_of(pid: int) -> int:
    """Wait for a child; return its exit code, or minus the signal that killed it."""
    patience = Patience()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if patience.is_over():
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"process {pid} does not end")
        time.sleep(0.002)


def run(action: Callable[[], int]) -> int:
    """Run an action in a child process; return its exit code, or minus a signal."""
    return end_of(start(action))


def difference(out: Path, reference: Path) -> str:
    """Return how a finished run differs from the undisturbed one; "" if it does not."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (out, reference)]
    if names[0] != names[1]:
        return f"other files: {names[0]}"
    files = [(folder / "student.safetensors").read_bytes() for folder in (out, reference)]
    if files[0] != files[1]:
        return "other weights"
    logs = [json.dumps(_timeless(RunFolder(folder).records())) for folder in (out, reference)]
    if logs[0] != logs[1]:
        return f"another log: {logs[0]}"
    metrics = [json.dumps(_timeless([RunFolder(f).metrics()])) for f in (out, reference)]
    return "" if metrics[0] == metrics[1] else "other metrics"


def _timeless(records: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]

"""Ray on this machine, for the tests that need it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.helpers.patience import Patience


def wait_until_it_trains(run: Path) -> int:
    """Wait for the first epoch of a run, and return the number of its process."""
    log, lock = run / "log.jsonl", run / "run.lock"
    Patience().wait_until(lambda: log.exists() and log.read_text(), f"{run} does not begin")
    return int(json.loads(lock.read_text())["pid"])


def kill_process_of(run: Path) -> None:
    """Kill a run that has begun to train, as the kernel does when memory is short."""
    os.kill(wait_until_it_trains(run), signal.SIGKILL)


def kill_worker_of(run: Path) -> None:
    """Kill the Ray worker of a run that has begun to train, as the end of a machine would."""
    stat = Path(f"/proc/{wait_until_it_trains(run)}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)

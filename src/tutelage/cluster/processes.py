"""Runs as processes of their own, and how they end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

STUDY = "TUTELAGE_STUDY"  # tells a run the process that started it
PR_SET_PDEATHSIG = 1  # of Linux's prctl: a signal to get when the parent ends
INTERRUPTED = 130  # the exit code of a run that has saved and can go on


def start_process(
    arguments: Sequence[str], output: IO[bytes], threads: int, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `tutelage` with some arguments.

    Args:
        arguments: such as `["train", "kd.yaml"]`.
        output: file of what it prints.
        threads: of its computations on CPUs, unless the recipe says how many.
        folder: where it works; None is the working folder.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "tutelage", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), STUDY: str(os.getpid())},
        cwd=folder,
        # A Ctrl-C reaches this process alone, which then asks each run once.
        start_new_session=True,
    )


def end_with_study() -> bool:
    """Let this run save and end when the process that started it, a study's, is killed.

    Without that it would go on alone, and the same study, started again, would meet its lock. Only
    Linux can tell a process of its parent's end.

    Returns:
        Whether a study started it.

    Raises:
        KeyboardInterrupt: If that process has ended already.
    """
    study = os.environ.pop(STUDY, None)  # what this run starts is no run of the study
    if study is None:
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if str(os.getppid()) != study:
            raise KeyboardInterrupt
    return True

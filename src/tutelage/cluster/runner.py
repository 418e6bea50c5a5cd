"""What starts the runs of a study: processes of this machine here, Ray in `ray_runner`."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tutelage.cluster.processes import start_process


class StartedRun(Protocol):
    """A run that was started, or waits for room."""

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None if it has not ended."""

    def is_running(self) -> bool:
        """Return False while it waits for room, and after its end."""

    def news(self) -> list[str]:
        """Return what has happened to it since the last call, in words."""

    def stop(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None:
        """End it at once."""


class Runner(Protocol):
    """Starts runs.

    Attributes:
        parallel: how many it takes at a time; None takes all, and starts them when there is room.
    """

    @property
    def parallel(self) -> int | None:
        """How many runs it takes at a time."""

    def start(self, arguments: Sequence[str], output: Path) -> StartedRun:
        """Start `tutelage` with some arguments, and write what it prints to a file."""


class LocalRun:
    """A process of this machine.

    Args:
        process: of the run.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None if it has not ended."""
        return self._process.poll()

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self.poll() is None

    def news(self) -> list[str]:
        """Return nothing: its end says all."""
        return []

    def stop(self) -> None:
        """Ask it to save and end."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


class LocalRunner:
    """Starts runs on this machine.

    Args:
        parallel: how many run at the same time; they share its CPUs.
    """

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel

    @property
    def parallel(self) -> int:
        """How many runs it takes at a time."""
        return self._parallel

    def start(self, arguments: Sequence[str], output: Path) -> LocalRun:
        """Start a run in a fresh process."""
        output.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // self._parallel)
        with output.open("wb") as file:
            return LocalRun(start_process(arguments, file, threads))

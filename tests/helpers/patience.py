"""How long a test waits for a process: as long as the machine needs, however busy it is.

A fixed time limit fails on a busy machine, and none at all lets a deadlock hang the suite. So a
limit that has passed is measured anew: it is a number of start-ups of Python with our imports, as
long as one takes at that moment.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

START_UPS = 40  # a process that is not done by then hangs
FIRST_LOOK_SECONDS = 60.0  # until then nothing is measured


class Patience:
    """The time that a process has left."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._limit = FIRST_LOOK_SECONDS

    def is_over(self) -> bool:
        """Return whether the process had the time of many start-ups, as long as they take now."""
        if time.monotonic() - self._began < self._limit:
            return False
        # The measured start-up is itself waiting time, in which the process may have gone on.
        self._limit = max(self._limit, START_UPS * _start_up_seconds())
        return time.monotonic() - self._began > self._limit

    def wait_until(self, condition: Callable[[], object], message: str) -> None:
        """Look at a condition until it holds.

        Raises:
            AssertionError: With the message, if the time is over.
        """
        while not condition():
            assert not self.is_over(), message
            time.sleep(0.005)


def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, and return its exit code."""
    Patience().wait_until(lambda: process.poll() is not None, f"{process.args} does not end")
    return process.wait()


def _start_up_seconds() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tutelage.engine"], check=True)
    return time.monotonic() - began

"""A command in a terminal of its own: it sees a screen, and Ctrl-C is a key."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from types import TracebackType

from tests.helpers.patience import Patience, exit_code

# The command becomes a session's leader with this terminal, as a shell would have started it.
LAUNCH = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
# A shell's background job, such as these tests, ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "tutelage", *sys.argv[1:]])
"""
ROWS, COLUMNS = 24, 110


class Terminal:
    """Runs `python -m tutelage …` until the block ends; what is still running then is killed.

    Attributes:
        text: all that was shown so far.
    """

    def __init__(self, *argv: object) -> None:
        self.text = ""
        self._screen, other = pty.openpty()
        fcntl.ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        command = [sys.executable, "-c", LAUNCH, *map(str, argv)]
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        self.process = subprocess.Popen(
            command,
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            start_new_session=True,
        )
        os.close(other)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._screen)

    def wait_for(self, shown: Callable[[str], object]) -> None:
        """Read until the text on the screen is as wanted."""
        patience = Patience()
        while not shown(self.text):
            assert not patience.is_over(), self.text
            assert self._read(), f"it ended before that:\n{self.text}"

    def ctrl_c(self) -> None:
        os.write(self._screen, b"\x03")

    def end(self) -> int:
        """Read to the end and return the exit code."""
        patience = Patience()
        while self._read():
            assert not patience.is_over(), self.text
        return exit_code(self.process)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._screen], [], [], 1.0)
        if not ready:
            return self.process.poll() is None
        try:
            piece = os.read(self._screen, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.text += piece.decode(errors="replace")
        return bool(piece)

"""At a signal, finish the current step, save a checkpoint and stop.

Ctrl-C, SIGTERM (schedulers, `docker stop`), SIGHUP (a closed terminal), SIGUSR1 and SIGUSR2 (Slurm
before a time limit) and SIGXCPU (a limit of the processor's time) all do that. Only Ctrl-C pressed
three times ends a step that hangs; what was saved before stays.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# Windows has only the first two.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
LAST_CTRL_C = 3
PATIENCE = b"\ntutelage: saving after this step; Ctrl-C once more ends without that\n"


class Interrupt:
    """Within the `with` block, `requested` becomes True at the first signal.

    Args:
        at_once: raise KeyboardInterrupt instead, where everything is saved already.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.requested = False
        self._at_once = at_once
        self._ctrl_c = 0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = signal.Signals.__members__.get(name)
                if number is not None and not _is_ignored_on_purpose(number):
                    self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._at_once:
            raise KeyboardInterrupt
        self.requested = True
        if number != signal.SIGINT:
            return  # schedulers repeat themselves; they have SIGKILL for what must end
        self._ctrl_c += 1
        if self._ctrl_c >= LAST_CTRL_C:
            raise KeyboardInterrupt
        if self._ctrl_c > 1:
            os.write(2, PATIENCE)  # print is not safe within a handler


def _is_ignored_on_purpose(number: signal.Signals) -> bool:
    """Return whether `nohup` started this process, which then outlives its terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN

"""The command line: `tutelage train | evaluate | predict | plan | study | compare | report | ...`.

Only what a command needs is imported. A user's mistake is one sentence and exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from tutelage.cli.arguments import parse
from tutelage.errors import UserError

PACKAGE = str(Path(__file__).parents[1])
# As `engine.interrupt` has them, without Ctrl-C itself; Windows has the first only.
SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 nobody reads the output, 2 a user's mistake, 130 interrupted.
    """
    # Class paths may name files of the working folder; it comes last, to shadow nothing.
    if "" not in sys.path:
        sys.path.append("")
    try:
        with _signals_as_ctrl_c(), _warnings_as_lines():
            arguments, overrides = parse(sys.argv[1:] if argv is None else argv)
            code: int = arguments.run(arguments, overrides)
            sys.stdout.flush()
    except UserError as error:
        return _print_mistake(str(error))
    except BrokenPipeError:  # the reader of our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        problem = str(error)
        if error.filename:
            problem = f"{error.filename} cannot be used ({error.strerror})"
        return _print_mistake(f"{problem}; check the path, its rights and the free space")
    except KeyboardInterrupt:
        print("tutelage: interrupted", file=sys.stderr)
        return 130
    return code


def _print_mistake(text: str) -> int:
    """Print a mistake as one line, and return the exit code."""
    lines = text.strip().splitlines()
    # An error of a data loading process comes with a traceback; only its last line is for the user.
    if len(lines) > 1 and lines[0].startswith("Caught "):
        lines = [lines[-1].partition("UserError: ")[2] or lines[-1]]
    print(f"tutelage: {' '.join(lines)}", file=sys.stderr)
    return 2


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print each warning of this package once, as one line, without the line of code it is from."""
    said: set[str] = set()
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = " ".join(str(message).split())
        if not filename.startswith(PACKAGE):
            before(message, category, filename, lineno, file, line)
        elif text not in said:
            said.add(text)
            print(f"warning: {text}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Let the signals that ask to end do it as Ctrl-C does, so that nothing is left half-done.

    Not where a launcher started several processes: one that waits for the others could not answer,
    and would stay.
    """
    handled: list[signal.Signals] = []
    is_only_process = os.environ.get("WORLD_SIZE", "1") == "1"
    if is_only_process and threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            number = signal.Signals.__members__.get(name)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                handled.append(number)
    for number in handled:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

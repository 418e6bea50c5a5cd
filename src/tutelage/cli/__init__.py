"""The command line: `tutelage train | evaluate | plan | methods | bench | report`.

Only what a command needs is imported, so `tutelage --help` answers at once. A user's mistake is one sentence and
exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from tutelage.cli.arguments import parse
from tutelage.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 2 a mistake of the user's, 130 interrupted."""
    if "" not in sys.path:
        sys.path.append("")  # class paths may name files of this folder; last, so that they shadow nothing
    try:
        with _polite_end():
            arguments, overrides = parse(sys.argv[1:] if argv is None else argv)
            code: int = arguments.run(arguments, overrides)
            sys.stdout.flush()
    except UserError as error:
        return _mistake(str(error))
    except BrokenPipeError:  # the reader of our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = f"{error.filename} cannot be used ({error.strerror})" if error.filename else str(error)
        return _mistake(f"{what}; check the path, its rights and the free space")
    except KeyboardInterrupt:
        print("tutelage: interrupted", file=sys.stderr)
        return 130
    return code


def _mistake(text: str) -> int:
    """Print one sentence; of an error in a data loading process only its last line is for the user."""
    lines = text.strip().splitlines()
    if len(lines) > 1 and lines[0].startswith("Caught "):
        lines = [lines[-1].partition("UserError: ")[2] or lines[-1]]
    print(f"tutelage: {' '.join(lines)}", file=sys.stderr)
    return 2


@contextmanager
def _polite_end() -> Iterator[None]:
    """Let a polite kill and a closed terminal end a command as Ctrl-C does, so that nothing is left half-done.

    Not where a launcher started several processes: one that waits for the others could not answer, and would stay.
    """
    numbers = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__]
    mine = []
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if alone and threading.current_thread() is threading.main_thread():
        mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

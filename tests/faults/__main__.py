"""`python -m tests.faults`: how many faults were injected, and survived.

A run survives a fault if the same command afterwards ends with the files, the weights, the log and
the metrics of a run that was not disturbed. A damaged file or a wrong argument is survived if it
leads to an answer or to a sentence, in bounded time and memory. `--small` takes a share of all, for
the test suite.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch

from tests.faults.calls import random_calls
from tests.faults.damage import damaged_files
from tests.faults.operations import Fault, Operations
from tests.faults.races import preparation_races, start_both, teacher_races
from tests.faults.runs import (
    CRASHED,
    DONE,
    FULL,
    INTERRUPTED,
    REFUSED,
    difference,
    end_of,
    run,
    start,
    tiny_run,
)
from tutelage.engine import interrupt

SIGNALS = tuple(signal.Signals[name] for name in interrupt.SIGNALS)
LONG = 30  # epochs of the runs that are killed at a random moment


class Faults:
    """Injects faults and counts them.

    Args:
        folder: for the runs.
        small: only a share of the faults.
    """

    def __init__(self, folder: Path, small: bool) -> None:
        self.folder = folder
        self.small = small
        self.random = random.Random(0)
        self.reference = folder / "reference"
        self.long_reference = folder / "long-reference"
        self._import_what_a_run_imports()
        begin = time.monotonic()
        assert run(lambda: tiny_run(self.long_reference, LONG)) == DONE
        self.seconds = time.monotonic() - begin

    def _import_what_a_run_imports(self) -> None:
        """Make the undisturbed run, and import here what it imported, once for all children."""
        names = self._answer(self.reference, lambda _: " ".join(sys.modules))
        for name in names.split():
            with suppress(Exception):  # some can be imported from within another only
                importlib.import_module(name)

    def kinds(self) -> dict[str, Callable[[], Iterator[str]]]:
        """Return the kinds of faults: each gives "" for one that was survived, else a sentence."""
        return {
            "kill before a file operation": lambda: self.at_operations("kill", 5),
            "kill in the middle of a write": lambda: self.at_operations("torn", 2),
            "full disk from an operation on": lambda: self.at_operations("full", 3),
            "kill at a random moment": lambda: self.at_random((signal.SIGKILL,), 30, 1),
            "signal at a random moment": lambda: self.at_random(SIGNALS, 24, 2),
            "two processes, one folder": lambda: self.races(12, 1),
            "two processes, one teacher": lambda: self._races(teacher_races),
            "two processes, one preparation": lambda: self._races(preparation_races),
            "damaged checkpoint": lambda: self.damages(30, 2),
            "damaged file of any kind": self._damaged_files,
            "random arguments": lambda: random_calls(self.random, 400 if self.small else 40_000),
        }

    def at_operations(self, fault: Fault, few: int) -> Iterator[str]:
        """Let every file operation of a run fail, or a few of them."""
        total = self._count_operations()
        step = max(1, total // few) if self.small else 1
        for at in range(1, total + 1, step):
            out = self._new_folder()

            def action(out: Path = out, at: int = at) -> int:
                Operations(out, at, fault).install()
                return tiny_run(out)

            code = run(action)
            # A warning instead of an error may end well, as when no space is left for the last.
            wanted = (DONE, REFUSED, FULL) if fault == "full" else (-signal.SIGKILL,)
            yield self._survived(out, f"{fault} at operation {at}", code, wanted)

    def at_random(self, signals: tuple[signal.Signals, ...], many: int, few: int) -> Iterator[str]:
        """Send signals at random moments, to one run again and again until it is done."""
        for _ in range(few if self.small else many):
            out = self._new_folder()
            codes = []
            for _ in range(3):
                pid = start(lambda out=out: tiny_run(out, LONG))
                time.sleep(self.random.uniform(0, self.seconds))
                number = self.random.choice(signals)
                os.kill(pid, number)
                codes.append(end_of(pid))
            wanted = (DONE, INTERRUPTED, *(-n for n in signals))
            wrong = [code for code in codes if code not in wanted]
            yield self._survived(
                out, f"signals {signals}", wrong[0] if wrong else DONE, wanted, LONG
            )

    def races(self, many: int, few: int) -> Iterator[str]:
        """Start two runs in one folder at once: one is done or both are, none crashes."""
        for _ in range(few if self.small else many):
            out = self._new_folder()
            codes = start_both(lambda out=out: tiny_run(out), self.random)
            wanted = (DONE, REFUSED)
            code = codes[1] if codes[0] == DONE else codes[0]
            yield self._survived(out, "two at once", code, wanted)

    def damages(self, many: int, few: int) -> Iterator[str]:
        """Cut the newest checkpoint's files or flip a bit in them; the older one is used."""
        half = self._new_folder()
        while len(list((half / "checkpoints").glob("0*"))) < 2:
            pid = start(lambda: tiny_run(half, LONG))
            time.sleep(self.random.uniform(0, self.seconds))
            os.kill(pid, signal.SIGKILL)
            end_of(pid)
            if (half / "metrics.json").exists():
                shutil.rmtree(half)
        for _ in range(few if self.small else many):
            out = self._new_folder()
            shutil.copytree(half, out)
            newest = max((out / "checkpoints").glob("0*"))
            file = self.random.choice(sorted(newest.iterdir()))
            content = bytearray(file.read_bytes())
            if self.random.random() < 0.3:
                content = content[: len(content) // 2]
            else:
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            file.write_bytes(content)
            yield self._survived(out, f"damaged {file.name}", DONE, (DONE,), LONG)

    def _races(self, inject: Callable[[Path, random.Random, int], Iterator[str]]) -> Iterator[str]:
        return inject(self.folder, self.random, 1 if self.small else 12)

    def _damaged_files(self) -> Iterator[str]:
        return damaged_files(self.folder, self.random, 1 if self.small else 40)

    def _survived(
        self, out: Path, name: str, code: int, wanted: tuple[int, ...], epochs: int = 2
    ) -> str:
        """Go on with a run; return "" if all is well with it, and remove it."""
        if code not in wanted:
            return f"{name}: ended with {code}"
        code = run(lambda: tiny_run(out, epochs))
        if code != DONE:
            return f"{name}: going on ended with {code}"
        reference = self.reference if epochs == 2 else self.long_reference
        problem = difference(out, reference)
        if not problem:
            shutil.rmtree(out)
        return problem and f"{name}: {problem}"

    def _count_operations(self) -> int:
        return int(self._answer(self._new_folder(), lambda operations: str(operations.count)))

    def _answer(self, out: Path, question: Callable[[Operations], str]) -> str:
        """Make an undisturbed run in a child process, and return its answer after that."""
        answer = self.folder / "answer"

        def action() -> int:
            operations = Operations(out)
            operations.install()
            code = tiny_run(out)
            answer.write_text(question(operations))
            return code

        assert run(action) == DONE
        return answer.read_text()

    def _new_folder(self) -> Path:
        return self.folder / f"run{self.random.getrandbits(48):012x}"


def main() -> int:
    """Inject the faults, and print a line a kind; return 1 if one was not survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a share of the faults")
    parser.add_argument("--only", default="", help="the kinds with this in their names")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        faults = Faults(Path(folder), arguments.small)
        for kind, inject in faults.kinds().items():
            if arguments.only not in kind:
                continue
            begin = time.monotonic()
            results = list(inject())
            problems = [problem for problem in results if problem]
            failed += len(problems)
            survived = len(results) - len(problems)
            figures = f"injected {len(results):6}  survived {survived:6}"
            print(f"{kind:32}  {figures}  {time.monotonic() - begin:6.1f} s", flush=True)
            for problem in problems:
                print(f"    {problem}", flush=True)
    return CRASHED if failed else DONE


if __name__ == "__main__":
    sys.exit(main())

"""The runs of a study, some at a time, with one line of progress over all of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tutelage.cluster.runner import Runner, StartedRun
from tutelage.errors import UserError
from tutelage.recipes.shipped import shipped_name

POLL_SECONDS = 0.25
LINE_EVERY_SECONDS = 10.0  # where no terminal shows a bar
MAX_NAMES = 4  # of runs under way that the line of progress has room for


@dataclass(frozen=True)
class Job:
    """One run of a study, or the teachers of its recipe.

    Attributes:
        method: name of its recipe.
        seed: of the run; None trains the recipe's teachers only.
        recipe: file of the recipe.
        out: folder of the run.
        epochs: how many it will train.
    """

    method: str
    seed: int | None
    recipe: Path
    out: Path
    epochs: int

    def epochs_done(self) -> int:
        """Return how many epochs its log holds; all of them if it is finished."""
        if self.done:
            return self.epochs
        log = self.out / "log.jsonl"
        return log.read_text().count("\n") if log.exists() else 0

    @property
    def done(self) -> bool:
        """Whether it is finished."""
        return (self.out / "metrics.json").exists()

    @property
    def output(self) -> Path:
        """File of what it prints."""
        return self.out.with_name(self.out.name + ".txt")

    def arguments(self, options: Sequence[str]) -> list[str]:
        """Return the command that it is, with further options.

        A shipped recipe is named, since the package may lie elsewhere on another machine.
        """
        name = shipped_name(self.recipe)
        source = str(self.recipe.absolute()) if name is None or os.path.exists(name) else name
        if self.seed is None:
            return ["train", source, "--teachers-only", *options]
        where = ["--out", str(self.out), "--resume", "--seed", str(self.seed)]
        return ["train", source, *where, *options]

    def __str__(self) -> str:
        return (
            f"teachers of {self.method}" if self.seed is None else f"{self.method} seed {self.seed}"
        )


class StudyProgress:
    """A bar with rate and time left on a terminal; elsewhere a line every few seconds.

    Args:
        total: epochs of all runs.
        done: those done before this command.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._done = done
        self._done_before = done
        self._is_terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            unit="epoch",
            smoothing=0,
            disable=not self._is_terminal,
            dynamic_ncols=True,
        )
        self._started = time.monotonic()
        self._last_line = self._started

    def show(self, done: int, running: str) -> None:
        """Show how many epochs are done, and what is running."""
        self._bar.set_postfix_str(running, refresh=False)
        self._bar.update(done - self._done)
        self._bar.refresh()
        self._done = done
        now = time.monotonic()
        if not self._is_terminal and now - self._last_line > LINE_EVERY_SECONDS:
            self._print_line(running, now)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is, or print the last line."""
        self._bar.close()
        if not self._is_terminal:
            self._print_line("", time.monotonic())

    def _print_line(self, running: str, now: float) -> None:
        rate = (self._done - self._done_before) / max(now - self._started, 1e-9)
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "no epoch done yet"
        parts = [f"{self._done}/{self._total} epochs", running, f"{rate:.2f} epoch/s", left]
        print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)
        self._last_line = now


def run_jobs(jobs: Sequence[Job], options: Sequence[str], runner: Runner) -> None:
    """Run all jobs that are not done.

    Args:
        jobs: in the order to start them.
        options: for every `tutelage train`.
        runner: starts them.

    Raises:
        UserError: If a run failed; the others that were under way save where they are, and can be
            resumed.
        KeyboardInterrupt: As above.
    """
    waiting = [job for job in jobs if not job.done]
    if not waiting:
        return
    running: list[tuple[Job, StartedRun]] = []
    progress = StudyProgress(sum(job.epochs for job in jobs), _epochs_done(jobs))
    try:
        while waiting or running:
            while waiting and (runner.parallel is None or len(running) < runner.parallel):
                job = waiting.pop(0)
                running.append((job, runner.start(job.arguments(options), job.output)))
            progress.show(_epochs_done(jobs), _names(running))
            time.sleep(POLL_SECONDS)
            for job, run in running:
                for text in run.news():
                    progress.say(f"{job}: {text}")
                code = run.poll()
                if code not in (None, 0):
                    raise UserError(f"{job} failed: {_last_line(job, code)} (see {job.output})")
            running = [(job, run) for job, run in running if run.poll() is None]
        progress.show(_epochs_done(jobs), "")
    finally:
        progress.close()
        _stop([run for _, run in running])


def _epochs_done(jobs: Sequence[Job]) -> int:
    return sum(job.epochs_done() for job in jobs)


def _names(running: Sequence[tuple[Job, StartedRun]]) -> str:
    names = [str(job) for job, run in running if run.is_running()]
    more = [f"{len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return ", ".join(names[:MAX_NAMES] + more)


def _stop(runs: Sequence[StartedRun]) -> None:
    """Ask runs to save and end; Ctrl-C kills them if it is pressed twice more."""
    for run in runs:
        if run.poll() is None:
            run.stop()
    presses = 0
    while any(run.poll() is None for run in runs):
        try:
            time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            presses += 1
            if presses > 1:
                for run in runs:
                    run.kill()
                raise
            print("tutelage: the runs are saving; Ctrl-C once more kills them", file=sys.stderr)


def _last_line(job: Job, code: int) -> str:
    """Return why a run failed: the last line that it printed."""
    if code < 0:
        return f"it was ended by signal {-code}"
    lines = job.output.read_text(errors="replace").strip().splitlines()
    if not lines:
        return f"it printed nothing and ended with code {code}"
    return lines[-1].removeprefix("tutelage: ")

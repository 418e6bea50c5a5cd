"""Runs in fresh processes, some at a time, with one line of progress over all of them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tutelage.errors import UserError

POLL_SECONDS = 0.25
LINE_EVERY_SECONDS = 10.0  # where no terminal shows a bar
STUDY = "TUTELAGE_STUDY"  # tells a run the process that started it
PR_SET_PDEATHSIG = 1  # of Linux's prctl: a signal to get when the parent ends


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        method: name of its recipe.
        seed: of the run.
        recipe: file of the recipe.
        out: folder of the run.
        epochs: how many it will train.
    """

    method: str
    seed: int
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

    def __str__(self) -> str:
        return f"{self.method} seed {self.seed}"


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


def run_jobs(jobs: Sequence[Job], options: Sequence[str], parallel: int) -> None:
    """Run all jobs that are not done.

    Args:
        jobs: in the order to start them.
        options: for every `tutelage train`.
        parallel: how many run at the same time.

    Raises:
        UserError: If a run failed; the others that were under way save where they are, and can be
            resumed.
        KeyboardInterrupt: As above.
    """
    waiting = [job for job in jobs if not job.done]
    if not waiting:
        return
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    progress = StudyProgress(sum(job.epochs for job in jobs), _epochs_done(jobs))
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running.append((job, _start(job, options, parallel)))
            progress.show(_epochs_done(jobs), ", ".join(str(job) for job, _ in running))
            time.sleep(POLL_SECONDS)
            for job, process in running:
                if process.poll() not in (None, 0):
                    raise UserError(
                        f"{job} failed: {_last_line(job, process.returncode)} (see {job.output})"
                    )
            running = [(job, process) for job, process in running if process.poll() is None]
        progress.show(_epochs_done(jobs), "")
    finally:
        progress.close()
        _stop([process for _, process in running])


def _epochs_done(jobs: Sequence[Job]) -> int:
    return sum(job.epochs_done() for job in jobs)


def _start(job: Job, options: Sequence[str], parallel: int) -> subprocess.Popen[bytes]:
    job.out.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    command = [sys.executable, "-m", "tutelage", "train", str(job.recipe)]
    command += ["--out", str(job.out), "--resume", "--seed", str(job.seed), *options]
    with job.output.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, STUDY: str(os.getpid())},
            # A Ctrl-C reaches this process alone, which then asks each run once.
            start_new_session=True,
        )


def end_with_study() -> bool:
    """Let this run save and end when the study that started it is killed.

    Without that it would go on alone, and the same study, started again, would meet its lock. Only
    Linux can tell a process of its parent's end.

    Returns:
        Whether a study started it.

    Raises:
        KeyboardInterrupt: If the study has ended already.
    """
    study = os.environ.pop(STUDY, None)  # what this run starts is no run of the study
    if study is None:
        return False
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if str(os.getppid()) != study:
            raise KeyboardInterrupt
    return True


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask runs to save and end; Ctrl-C kills them if it is pressed twice more."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    presses = 0
    while any(process.poll() is None for process in processes):
        try:
            for process in processes:
                process.wait()
        except KeyboardInterrupt:
            presses += 1
            if presses > 1:
                for process in processes:
                    process.kill()
                    process.wait()
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

"""Runs in fresh processes, some at a time, with one line of progress over all of them."""

from __future__ import annotations

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

from tutelage.engine.progress import LINE_EVERY_SECONDS
from tutelage.errors import UserError

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    method: str
    seed: int
    recipe: Path
    out: Path
    epochs: int

    def epochs_done(self) -> int:
        """Return how many epochs its log holds; all of them when it is finished."""
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
        """Where what it prints goes."""
        return self.out.with_name(self.out.name + ".txt")

    def __str__(self) -> str:
        return f"{self.method} seed {self.seed}"


class StudyProgress:
    """A bar with rate and time left on a terminal; a line every few seconds, and the last one, elsewhere.

    Args:
        total, done: epochs of all runs, and those done before this study went on.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._from = total, done, done
        self._terminal = sys.stderr.isatty()
        self._bar: Any = tqdm(
            total=total, initial=done, unit="epoch", smoothing=0, disable=not self._terminal, dynamic_ncols=True
        )
        self._started = self._said = time.monotonic()

    def show(self, done: int, running: str) -> None:
        """Show how many epochs are done, and what is running."""
        self._bar.set_postfix_str(running, refresh=False)
        self._bar.update(done - self._done)
        self._bar.refresh()
        self._done = done
        now = time.monotonic()
        if not self._terminal and now - self._said > LINE_EVERY_SECONDS:
            self._line(running, now)

    def close(self) -> None:
        """Leave the bar as it is, or say how far it came."""
        self._bar.close()
        if not self._terminal:
            self._line("", time.monotonic())

    def _line(self, running: str, now: float) -> None:
        rate = (self._done - self._from) / max(now - self._started, 1e-9)
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "no epoch done yet"
        parts = [f"{self._done}/{self._total} epochs", running, f"{rate:.2f} epoch/s", left]
        print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)
        self._said = now


def run_jobs(jobs: Sequence[Job], options: Sequence[str], parallel: int) -> None:
    """Run all jobs that are not done, `parallel` at a time.

    Raises:
        UserError: a run failed; the others that were under way save where they are, and can be resumed.
        KeyboardInterrupt: as above.
    """
    waiting = [job for job in jobs if not job.done]
    if not waiting:
        return
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    progress = StudyProgress(sum(job.epochs for job in jobs), sum(job.epochs_done() for job in jobs))
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                running.append((job, _start(job, options, parallel)))
            progress.show(sum(job.epochs_done() for job in jobs), ", ".join(str(job) for job, _ in running))
            time.sleep(POLL_SECONDS)
            for job, process in running:
                if process.poll() not in (None, 0):
                    raise UserError(f"{job} failed: {_last_words(job, process.returncode)} (see {job.output})")
            running = [(job, process) for job, process in running if process.poll() is None]
        progress.show(sum(job.epochs_done() for job in jobs), "")
    finally:
        progress.close()
        _stop([process for _, process in running])


def _start(job: Job, options: Sequence[str], parallel: int) -> subprocess.Popen[bytes]:
    job.out.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    command = [sys.executable, "-m", "tutelage", "train", str(job.recipe), "--out", str(job.out), "--resume"]
    command += ["--seed", str(job.seed), *options]
    with job.output.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads},
            start_new_session=True,  # a Ctrl-C reaches this process alone, which then asks each run once
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask runs to save and end; a second Ctrl-C ends them at once."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
            process.wait()
        raise


def _last_words(job: Job, code: int) -> str:
    lines = job.output.read_text(errors="replace").strip().splitlines()
    if code < 0:
        return f"it was ended by signal {-code}"
    return lines[-1].removeprefix("tutelage: ") if lines else f"it printed nothing and ended with code {code}"

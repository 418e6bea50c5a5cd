"""`tutelage bench`: methods × seeds, each run in a fresh process, one table at the end."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tutelage.cli.recipes import parse_recipe
from tutelage.cli.study import write_study
from tutelage.cli.teachers import with_teacher
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
        """Return how many epochs its log holds."""
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


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Train the teacher once, then all runs; write results.json, the table and the picture."""
    folder, out = Path(arguments.recipes), Path(arguments.out)
    methods = _methods(folder, arguments.methods)
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise UserError("--seeds and --jobs must be at least 1")
    jobs = []
    for method in methods:
        parsed = parse_recipe(folder / f"{method}.yaml", overrides)
        if not with_teacher(parsed, arguments.teachers):
            return 130
        for seed in range(arguments.seeds):
            target = out / method / f"seed{seed}"
            jobs.append(Job(method, seed, parsed.path, target, parsed.config.train.epochs))
    jobs.sort(key=lambda job: job.seed)  # seed by seed, so that an interrupted study is still paired
    extra = ["--teachers", str(arguments.teachers), *overrides]
    run_jobs(jobs, extra, arguments.jobs)
    print(write_study(out, methods, arguments.seeds))
    return 0


def run_jobs(jobs: Sequence[Job], options: Sequence[str], parallel: int) -> None:
    """Run all jobs that are not done, `parallel` at a time, with one progress bar over all their epochs.

    Raises:
        UserError: a run failed; the others that were under way are ended (they can be resumed).
    """
    waiting = [job for job in jobs if not job.done]
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    with tqdm(total=sum(job.epochs for job in jobs), unit="epoch", dynamic_ncols=True) as bar:
        bar.update(sum(job.epochs for job in jobs if job.done))
        bar.initial = bar.n
        try:
            while waiting or running:
                while waiting and len(running) < parallel:
                    job = waiting.pop(0)
                    running.append((job, _start(job, options, parallel)))
                time.sleep(POLL_SECONDS)
                for job, process in running:
                    if process.poll() not in (None, 0):
                        raise UserError(f"{job.method}, seed {job.seed} failed: {_last_line(job)} (see {job.output})")
                running = [(job, process) for job, process in running if process.poll() is None]
                done = sum(job.epochs if job.done else job.epochs_done() for job in jobs)
                bar.set_postfix_str(", ".join(f"{job.method} seed {job.seed}" for job, _ in running), refresh=False)
                bar.update(done - bar.n)
        finally:
            for _, process in running:
                process.terminate()
            for _, process in running:
                process.wait()


def _start(job: Job, options: Sequence[str], parallel: int) -> subprocess.Popen[bytes]:
    job.out.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // parallel))
    command = [sys.executable, "-m", "tutelage", "train", str(job.recipe), "--out", str(job.out), "--resume"]
    command += ["--seed", str(job.seed), *options]
    with job.output.open("wb") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _last_line(job: Job) -> str:
    lines = job.output.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("tutelage: ") if lines else "it printed nothing"


def _methods(folder: Path, wanted: str | None) -> list[str]:
    there = sorted(path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("teacher"))
    if not there:
        raise UserError(f"{folder} holds no recipes; give a folder such as recipes/classification/digits")
    methods = there if wanted is None else wanted.split(",")
    missing = [method for method in methods if method not in there]
    if missing:
        raise UserError(f"{folder} has no recipe {missing[0]}.yaml; there are {there}")
    return methods

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tutelage import UserError
from tutelage.cli import jobs
from tutelage.cli.jobs import Job, run_jobs
from tutelage.cli.study import study_table

from .conftest import Run
from .support import TEACHER, network, part, write_recipe

# Stands for `tutelage train`: writes its log, and saves when it is asked to end.
CHILD = """
import signal, sys, time
from pathlib import Path
out, epochs, end = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def save(number, frame):
    (out / "saved").write_text("x")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
out.mkdir(parents=True)
for epoch in range(epochs):
    with (out / "log.jsonl").open("a") as log:
        log.write("{}\\n")
    time.sleep(0.1)
if end == "fails":
    print("first\\ntutelage: the disk is full")
    sys.exit(2)
(out / "metrics.json").write_text("{}")
"""


# Ends the process of this test politely as soon as the run is under way.
KILLER = """
import os, signal, sys, time
while not os.path.exists("out/alone/seed0/log.jsonl"):
    time.sleep(0.05)
os.kill(int(sys.argv[1]), signal.SIGTERM)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put quick processes in the place of runs; returns the names of the methods that shall fail."""
    failing: list[str] = []

    def start(job: Job, options: object, parallel: int) -> subprocess.Popen[bytes]:
        job.out.parent.mkdir(parents=True, exist_ok=True)
        end = "fails" if job.method in failing else "ends"
        command = [sys.executable, "-c", CHILD, str(job.out), str(job.epochs), end]
        with job.output.open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    return failing


def job(method: str, epochs: int, seed: int = 0) -> Job:
    return Job(method, seed, Path("x.yaml"), Path("out") / method / f"seed{seed}", epochs)


def test_without_a_terminal_it_prints_a_line_now_and_then(
    quick: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "LINE_EVERY_SECONDS", 0.4)
    started = time.monotonic()
    run_jobs([job("alone", 10), job("kd", 10)], [], 2)
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - started) / 0.4 + 2
    assert "alone seed 0, kd seed 0" in lines[0]
    assert lines[-1].startswith("20/20 epochs  ")
    assert lines[-1].endswith(" epoch/s  0 s left")


def test_a_run_that_fails_is_told_and_the_others_save(quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    quick.append("kd")
    with pytest.raises(UserError, match=r"^kd seed 0 failed: the disk is full \(see out/kd/seed0\.txt\)$"):
        run_jobs([job("alone", 200), job("kd", 2), job("rcka", 1)], [], 2)
    assert Path("out/alone/seed0/saved").exists()
    assert not Path("out/rcka").exists()


def test_a_run_that_is_killed_is_told(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(job: Job, options: object, parallel: int) -> subprocess.Popen[bytes]:
        job.output.parent.mkdir(parents=True)
        job.output.touch()
        return subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

    monkeypatch.setattr(jobs, "_start", start)
    with pytest.raises(UserError, match="alone seed 0 failed: it was ended by signal 9"):
        run_jobs([job("alone", 2)], [], 1)


def test_a_polite_kill_of_the_study_lets_its_runs_save(quick: list[str], run: Run) -> None:
    write_recipe("study/alone.yaml", train={"epochs": 200})
    with subprocess.Popen([sys.executable, "-c", KILLER, str(os.getpid())]):
        answer = run("bench", "study", "--seeds", 1, "--out", "out")
    assert answer.code == 130
    assert "tutelage: interrupted; what is done is kept" in answer.err
    assert Path("out/alone/seed0/saved").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_one_of_several_processes_leaves_the_signals_to_the_launcher(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("tutelage.cli.methods.run", lambda: seen.append(signal.getsignal(signal.SIGTERM)) or 0)
    for processes in ("1", "2"):
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert run("methods").code == 0
    assert seen[0] is not signal.SIG_DFL
    assert seen[1] is signal.SIG_DFL


def test_finished_runs_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_start", None)
    Path("out/alone/seed0").mkdir(parents=True)
    Path("out/alone/seed0/metrics.json").write_text("{}")
    started = time.monotonic()
    run_jobs([job("alone", 3)], [], 1)
    assert time.monotonic() - started < 1


def test_a_wrong_study_is_one_sentence_before_anything_runs(refuse: Run) -> None:
    write_recipe("study/teacher.yaml", **TEACHER)
    write_recipe("study/alone.yaml", teacher={"recipe": "teacher.yaml"})
    write_recipe("study/kd.yaml", method=part("methods.KD"), teacher={"recipe": "teacher.yaml"})
    bench = ["bench", "study", "--out", "out"]
    refuse("bench", "nowhere", "--out", "out", says=("nowhere holds no recipes", "recipes/classification/digits"))
    refuse("bench", "study/kd.yaml", "--out", "out", says=("study/kd.yaml holds no recipes",))
    refuse(*bench, "--methods", "alone,kdd", says=("study has no recipe kdd.yaml", "['alone', 'kd']"))
    refuse(*bench, "--methods", "", says=("study has no recipe .yaml",))
    refuse(*bench, "--methods", "teacher", says=("study has no recipe teacher.yaml",))
    refuse(*bench, "--seeds", 0, says=("--seeds must be at least 1, got 0",))
    refuse(*bench, "--jobs", 0, says=("--jobs must be at least 1, got 0",))
    refuse(*bench, "--seed", 3, says=("bench gives every run its seed", "--seeds"))
    refuse(*bench, "--resume", says=("--resume is no option and no key of the recipe",))
    refuse(*bench, "--train.epochz", 3, says=("on the command line: --train.epochz",))
    refuse(*bench, "--labels", 3, says=("study/alone.yaml: labels is 3", "choose 10 to 1079"))
    refuse("bench", "study", "--out", "study/kd.yaml", says=("study/kd.yaml/alone/seed0 cannot be made",))
    taps = part("methods.RCKA", pairs={"stage9": "stage1"})
    write_recipe("study/rcka.yaml", method=taps, teacher={"recipe": "teacher.yaml"})
    refuse(*bench, says=("study/rcka.yaml: a tap of the student: no module 'stage9'",))
    write_recipe("study/teacher.yaml", **{**TEACHER, "student": network(width=8, num_classes=7)})
    refuse(
        *bench, "--methods", "kd", says=("study/kd.yaml: ", "(50, 10) from the student and (50, 7) from the teacher")
    )


def test_methods_that_are_named_twice_run_once(quick: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "tutelage.cli.bench.run_jobs", lambda jobs, options, parallel: seen.append([str(j) for j in jobs])
    )
    monkeypatch.setattr("tutelage.cli.bench.write_study", lambda out, methods, seeds: ",".join(methods))
    monkeypatch.setattr("tutelage.cli.bench.draw_study", lambda out, methods: [])
    for name in ("alone", "other"):
        write_recipe(f"study/{name}.yaml")
    answer = run("bench", "study", "--methods", "other, alone,other", "--seeds", 2, "--out", "out")
    assert (answer.code, answer.out.splitlines()[0]) == (0, "other,alone")
    assert seen == [["other seed 0", "alone seed 0", "other seed 1", "alone seed 1"]]


def test_the_table_of_one_seed_has_no_spread_and_that_of_two_has() -> None:
    row = {"seeds": [0], "parameters": {"student": 10}, "seconds": {"mean": 1.0, "sd": float("nan")}}
    one = {**row, "test": {"top1": {"mean": 0.5, "sd": float("nan")}}}
    one["difference"] = {"mean": 0.1, "interval95": (float("nan"), float("nan"))}
    two = {**row, "test": {"top1": {"mean": 0.5, "sd": 0.01}}}
    two["difference"] = {"mean": 0.1, "interval95": (0.05, 0.15)}
    first, second = study_table({"kd": one, "rcka": two}).splitlines()[1:]
    assert first.split() == ["kd", "50.00", "+10.00", "–", "–", "–", "10", "1.0"]
    assert "50.00 ± 1.00" in second
    assert "+10.00 [+5.00, +15.00]" in second

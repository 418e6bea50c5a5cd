from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import TEACHER, network, part, write_recipe
from tests.helpers.patience import Patience
from tutelage import UserError
from tutelage.analysis.study import collect
from tutelage.cli import jobs
from tutelage.cli.jobs import Job, run_jobs
from tutelage.cli.runs import write_memory
from tutelage.cli.study_files import with_earlier_runs, write_study
from tutelage.cluster import runner
from tutelage.cluster.runner import LocalRunner
from tutelage.recipes.read import parse_recipe

# Stands for `tutelage train`: writes its log, and saves when it is asked to end.
CHILD = """
import signal, sys, time
from pathlib import Path
end, name, out = sys.argv[1], Path(sys.argv[3]).stem, Path(sys.argv[5])
epochs = int(name) if name.isdecimal() else 20_000
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
    while not Path("out/baseline/seed0/log.jsonl").exists():  # it can save from then on
        time.sleep(0.02)
    print("first\\ntutelage: the disk is full")
    sys.exit(2)
(out / "metrics.json").write_text("{}")
"""


# Ends the process of this test politely as soon as the run is under way.
KILLER = """
import os, signal, sys, time
while not os.path.exists("out/baseline/seed0/log.jsonl"):
    time.sleep(0.05)
os.kill(int(sys.argv[1]), signal.SIGTERM)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace runs by quick processes; return the names of the methods that shall fail."""
    failing: list[str] = []

    def start(arguments: Sequence[str], output: IO[bytes], threads: int) -> subprocess.Popen[bytes]:
        end = "fails" if Path(output.name).parent.name in failing else "ends"
        command = [sys.executable, "-c", CHILD, end, *arguments]
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )

    monkeypatch.setattr(runner, "start_process", start)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    return failing


def job(method: str, epochs: int, seed: int = 0) -> Job:
    return Job(method, seed, Path(f"{epochs}.yaml"), Path("out") / method / f"seed{seed}", epochs)


def test_without_a_terminal_it_prints_a_line_now_and_then(
    quick: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "LINE_EVERY_SECONDS", 0.4)
    started = time.monotonic()
    run_jobs([job("baseline", 10), job("kd", 10)], [], LocalRunner(2))
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - started) / 0.4 + 2
    assert "baseline seed 0, kd seed 0" in lines[0]
    assert lines[-1].startswith("20/20 epochs  ")
    assert lines[-1].endswith(" epoch/s  0 s left")


def test_a_run_that_fails_is_told_and_the_others_save(
    quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    quick.append("kd")
    with pytest.raises(
        UserError, match=r"^kd seed 0 failed: the disk is full \(see out/kd/seed0\.txt\)$"
    ):
        run_jobs([job("baseline", 20_000), job("kd", 2), job("rcka", 1)], [], LocalRunner(2))
    assert Path("out/baseline/seed0/saved").exists()
    assert not Path("out/rcka").exists()


def test_a_run_that_is_killed_is_told(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

    monkeypatch.setattr(runner, "start_process", start)
    with pytest.raises(UserError, match="baseline seed 0 failed: it was ended by signal 9"):
        run_jobs([job("baseline", 2)], [], LocalRunner(1))


def test_a_polite_kill_of_the_study_lets_its_runs_save(quick: list[str], run: Run) -> None:
    write_recipe("study/baseline.yaml", train={"epochs": 20_000})
    with subprocess.Popen([sys.executable, "-c", KILLER, str(os.getpid())]):
        answer = run("study", "study", "--seeds", 1, "--out", "out")
    assert answer.code == 130
    assert "tutelage: interrupted; what is done is kept" in answer.err
    assert Path("out/baseline/seed0/saved").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# A study that starts one run and is killed; the run says how it ended.
STUDY = """
import os, subprocess, sys
environment = {**os.environ, "TUTELAGE_STUDY": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=environment)
while not os.path.exists(sys.argv[2] + ".started"):
    pass
os.kill(os.getpid(), 9)
"""
ORPHAN = """
import os, signal, sys, time
from pathlib import Path
from tutelage.cluster.processes import end_with_study
def save(number, frame):
    Path(sys.argv[1]).write_text(signal.Signals(number).name)
    os._exit(130)
signal.signal(signal.SIGTERM, save)
assert end_with_study() and "TUTELAGE_STUDY" not in os.environ
Path(sys.argv[1] + ".started").touch()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of that")
def test_the_runs_of_a_killed_study_save_and_end(tmp_path: Path) -> None:
    said = tmp_path / "said"
    subprocess.run([sys.executable, "-c", STUDY, ORPHAN, str(said)])
    Patience().wait_until(lambda: said.exists() and said.read_text(), "the run does not end")
    assert said.read_text() == "SIGTERM"


def test_one_of_several_processes_leaves_the_signals_to_the_launcher(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        "tutelage.cli.methods.run",
        lambda arguments, overrides: seen.append(signal.getsignal(signal.SIGTERM)) or 0,
    )
    for processes in ("1", "2"):
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert run("methods").code == 0
    assert seen[0] is not signal.SIG_DFL
    assert seen[1] is signal.SIG_DFL


def test_finished_runs_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "start_process", None)
    Path("out/baseline/seed0").mkdir(parents=True)
    Path("out/baseline/seed0/metrics.json").write_text("{}")
    run_jobs([job("baseline", 3)], [], LocalRunner(1))


def test_a_wrong_study_is_one_sentence_before_anything_runs(refuse: Run) -> None:
    write_recipe("study/teacher.yaml", **TEACHER)
    write_recipe("study/baseline.yaml", teacher={"recipe": "teacher.yaml"})
    write_recipe("study/kd.yaml", method=part("methods.KD"), teacher={"recipe": "teacher.yaml"})
    study = ["study", "study", "--out", "out"]
    refuse(
        "study",
        "nowhere",
        "--out",
        "out",
        says=("nowhere holds no recipes", "classification/digits"),
    )
    refuse("study", "study/kd.yaml", "--out", "out", says=("study/kd.yaml is one recipe",))
    refuse(
        *study,
        "--methods",
        "baseline,kdd",
        says=("study has no recipe kdd.yaml", "['baseline', 'kd']"),
    )
    refuse(*study, "--methods", "", says=("--methods is empty; it takes names out of",))
    write_recipe("study/ofa_teacher_vit.yaml", **TEACHER)
    for teacher in ("teacher", "ofa_teacher_vit"):
        refuse(
            *study,
            "--methods",
            teacher,
            says=(f"study has no recipe {teacher}.yaml", "['baseline', 'kd']"),
        )
    refuse(*study, "--seeds", 0, says=("--seeds must be at least 1, got 0",))
    refuse(*study, "--jobs", 0, says=("--jobs must be at least 1, got 0",))
    refuse(
        *study, "--cpus-per-run", 2, says=("--cpus-per-run is for runs on a cluster; add --ray",)
    )
    refuse(*study, "--jobs", 2, "--ray", says=("leave --jobs out",))
    refuse(*study, "--ray", "--gpus-per-run", 1.5, says=("0 to 1 or a whole number, got 1.5",))
    refuse(*study, "--ray", "--gpus-per-run", -1, says=("0 to 1 or a whole number, got -1",))
    refuse(*study, "--seed", 3, says=("study gives every run its seed", "--seeds"))
    refuse(*study, "--resume", says=("--resume is no option and no key of the recipe",))
    refuse(*study, "--train.epochz", 3, says=("on the command line: --train.epochz",))
    refuse(
        *study,
        "--num_labels",
        3,
        says=("study/baseline.yaml: num_labels is 3", "choose 10 to 1079"),
    )
    refuse(
        "study",
        "study",
        "--out",
        "study/kd.yaml",
        says=("study/kd.yaml/baseline/seed0 cannot be made",),
    )
    taps = part("methods.RCKA", layer_pairs={"stage9": "stage1"})
    write_recipe("study/rcka.yaml", method=taps, teacher={"recipe": "teacher.yaml"})
    refuse(*study, says=("study/rcka.yaml: a layer of the student: no module 'stage9'",))
    write_recipe("study/teacher.yaml", **{**TEACHER, "student": network(width=8, num_classes=7)})
    refuse(
        *study,
        "--methods",
        "kd",
        says=("study/kd.yaml: ", "(50, 10) from the student and (50, 7) from the teacher"),
    )


def test_methods_that_are_named_twice_run_once(
    quick: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "tutelage.cli.study_runs.run_jobs",
        lambda jobs, options, runner: seen.append([str(j) for j in jobs]),
    )
    monkeypatch.setattr(
        "tutelage.cli.study_files.write_study",
        lambda out, methods, seeds, monitor: ",".join(methods),
    )
    monkeypatch.setattr("tutelage.cli.study_files.draw_study", lambda out, methods: [])
    for name in ("baseline", "other"):
        write_recipe(f"study/{name}.yaml")
    answer = run(
        "study", "study", "--methods", "other, baseline,other", "--seeds", 2, "--out", "out"
    )
    assert (answer.code, answer.out.splitlines()[0]) == (0, "other,baseline")
    assert seen == [["other seed 0", "baseline seed 0", "other seed 1", "baseline seed 1"]]


def figures(top1: float, seconds: float, **extra: float) -> dict[str, Any]:
    """Return the metrics of a run, as a task that knows `ap` would leave them."""
    test = {"ap": top1, "num_samples": 10.0}
    ends = {
        "last": {"epoch": 4, "test": {"ap": top1 / 2, "num_samples": 10.0}},
        "best": {"epoch": 2, "test": test},
    }
    parameters = {"student": 1000, "method": 20}
    costs = {"seconds": seconds, "steps": 10, "parameters": parameters, **extra}
    return {"test": test, **ends, "validation": {"ap": top1 + 0.01}, **costs}


def test_methods_are_compared_in_the_figure_of_their_task() -> None:
    write_recipe("study/baseline.yaml")
    assert parse_recipe("study/baseline.yaml").monitor() == "top1"
    detection = {"task": part("tasks.Detection", num_classes=1), "data": part("data.Digits")}
    write_recipe("study/other.yaml", **detection)
    assert parse_recipe("study/other.yaml").monitor() == "ap"


def test_the_memory_of_a_run_lies_beside_its_figures(tmp_path: Path) -> None:
    run = tmp_path / "baseline/seed0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps({"seed": 0}))
    write_memory(run)
    found = collect(tmp_path, ["baseline"], 1)["baseline"][0]
    assert found["seed"] == 0
    assert found["peak_mib"] > 20


def test_a_study_that_grows_keeps_its_earlier_methods_and_seeds(tmp_path: Path) -> None:
    for method in ("baseline", "kd"):
        for seed in (0, 1):
            run = tmp_path / method / f"seed{seed}"
            run.mkdir(parents=True)
            (run / "metrics.json").write_text(json.dumps(figures(0.5 + seed / 10, 1.0)))
    assert with_earlier_runs(tmp_path, ["baseline"], 2, "ap") == (["baseline"], 2)
    write_study(tmp_path, ["baseline"], 2, "ap")
    methods, seeds = with_earlier_runs(tmp_path, ["kd"], 1, "ap")
    assert (methods, seeds) == (["baseline", "kd"], 2)
    assert "+0.00 [+0.00, +0.00]" in write_study(tmp_path, methods, seeds, "ap")
    assert with_earlier_runs(tmp_path, ["kd"], 1, "top1") == (["kd"], 1)
    (tmp_path / "kd/seed1/metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"kd/seed1/metrics.json is not whole \(.*\); remove it"):
        write_study(tmp_path, methods, seeds, "ap")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"monitor": "ap"}', '{"monitor": "ap", "runs": {"../kd": {"0": {}}}}'],
)
def test_a_file_that_is_not_that_of_a_study_is_not_lost(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"results\.json is not .*; move it away and give"):
        with_earlier_runs(tmp_path, ["kd"], 1, "ap")
    assert path.read_text() == content


def test_a_huge_seed_in_a_file_makes_no_loop(tmp_path: Path) -> None:
    content = {"monitor": "ap", "runs": {"kd": {"0": {}, "99999999999": {}}}}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert with_earlier_runs(tmp_path, ["baseline"], 2, "ap") == (["kd", "baseline"], 2)

"""`tutelage study --ray`: the study of local processes, on workers that may be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import TEACHER, TRAIN, part, write_recipe
from tests.helpers.ray import kill_process_of, kill_worker_of, wait_until_it_trains

LONG = {**TRAIN, "epochs": 200, "eval_every": 100, "save_every": 100}
# What no two runs of one recipe share: how long they took, where, and with how much memory.
OWN = {"seconds", "cost", "peak_mib", "peak_gpu_mib", "provenance"}


def write_study() -> None:
    write_recipe("study/teacher.yaml", **TEACHER)
    for name, method in (("baseline", part("methods.Baseline")), ("kd", part("methods.KD"))):
        write_recipe(
            f"study/{name}.yaml", method=method, teacher={"recipe": "teacher.yaml"}, train=LONG
        )


def figures(value: Any) -> Any:
    """Return the content of results.json without what differs between two equal runs."""
    if isinstance(value, Mapping):
        return {key: figures(entry) for key, entry in value.items() if key not in OWN}
    return value


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_a_study_survives_a_killed_worker_and_is_that_of_this_machine(run: Run) -> None:
    write_study()
    argv = ["study", "study", "--seeds", "1"]
    killers = [
        threading.Thread(target=kill_worker_of, args=(Path("out/kd/seed0").absolute(),)),
        threading.Thread(target=kill_process_of, args=(Path("out/baseline/seed0").absolute(),)),
    ]
    for killer in killers:
        killer.start()
    answer = run(*argv, "--out", "out", "--ray")
    for killer in killers:
        killer.join()
    assert answer.code == 0, answer.err
    for name in ("kd", "baseline"):
        again = f"{name} seed 0: its process or worker is gone; it goes on from its last checkpoint"
        assert again in answer.err
    assert answer.err.splitlines()[-1].startswith("400/400 epochs")
    printed = Path("out/kd/seed0.txt").read_text()
    assert printed.count("tutelage: runs on ") == 2
    assert "interrupted; out/kd/seed0 is saved" in printed
    log = Path("out/kd/seed0/log.jsonl").read_text().splitlines()
    epochs = [json.loads(line)["epoch"] for line in log]
    assert epochs == list(range(1, 201))
    assert not list(Path("out").glob(".seen-*"))

    assert run(*argv, "--out", "local").code == 0
    results = [json.loads(Path(name, "results.json").read_text()) for name in ("out", "local")]
    # As text, in which the deviation of one seed, NaN, is equal to itself.
    texts = [json.dumps(figures(content), indent=1) for content in results]
    assert texts[0] == texts[1]

    again = run(*argv, "--out", "out", "--ray")
    assert (again.code, again.err) == (0, "")
    assert again.out == answer.out


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_an_interrupted_study_lets_its_runs_save(run: Run) -> None:
    write_recipe("study/baseline.yaml", train={**LONG, "epochs": 20_000})

    def interrupt() -> None:
        wait_until_it_trains(Path("out/baseline/seed0"))
        os.kill(os.getpid(), signal.SIGTERM)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    answer = run("study", "study", "--seeds", 3, "--out", "out", "--ray")  # one waits for room
    interrupter.join()
    assert answer.code == 130
    assert "tutelage: interrupted; what is done is kept" in answer.err
    assert "Traceback" not in answer.err
    assert "is saved: add --resume" in Path("out/baseline/seed0.txt").read_text()
    assert len(list(Path("out/baseline/seed0/checkpoints").iterdir())) == 1
    assert not Path("out/baseline/seed2").exists()


@pytest.mark.usefixtures("two_workers")
def test_what_the_cluster_cannot_run_is_refused_before_anything_runs(refuse: Run) -> None:
    write_recipe("study/baseline.yaml")
    study = ["study", "study", "--seeds", 1, "--ray"]
    says = ("no machine of the cluster has 3 CPUs and 0 GPUs for a run", "--cpus-per-run")
    refuse(*study, "--out", "out", "--cpus-per-run", 3, says=says)
    # The same path is another folder for a process that works elsewhere.
    says = ("does not see /proc/self/cwd/out as the study does", "that all machines of the cluster")
    refuse(*study, "--out", "/proc/self/cwd/out", says=says)


def test_without_ray_it_is_one_sentence(refuse: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe("study/baseline.yaml")
    monkeypatch.setitem(sys.modules, "ray", None)
    says = ("--ray needs the package ray", "pip install 'tutelage[ray]'")
    refuse("study", "study", "--out", "out", "--ray", says=says)


def test_a_cluster_that_does_not_answer_is_one_sentence(refuse: Run) -> None:
    pytest.importorskip("ray")
    write_recipe("study/baseline.yaml")
    says = ("no Ray cluster answers at 127.0.0.1:1 (", "that `ray start --head` printed")
    refuse("study", "study", "--out", "out", "--ray", "127.0.0.1:1", says=says)

"""Real processes: a live bar on a real terminal, Ctrl-C, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import TEACHER, TRAIN, part, tree, write_recipe
from tests.helpers.patience import Patience, exit_code
from tests.helpers.terminal import Terminal

LONG = {**TRAIN, "epochs": 400, "eval_every": 200, "save_every": 200}


def test_train_shows_a_live_bar_saves_at_ctrl_c_and_goes_on(run: Run) -> None:
    recipe = write_recipe("mine.yaml", train=LONG)
    with Terminal("train", recipe, "--out", "runs/mine") as terminal:
        terminal.wait_for(
            lambda text: re.search(
                r"epoch \d+/400 .*\d/800 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+step/s.* task \d", text
            )
        )
        terminal.ctrl_c()
        assert terminal.end() == 130
    last = terminal.text.strip().splitlines()[-1]
    assert last == "tutelage: interrupted; runs/mine is saved: add --resume to go on"
    assert "Traceback" not in terminal.text
    assert len(list(Path("runs/mine/checkpoints").iterdir())) == 1
    assert not Path("runs/mine/metrics.json").exists()
    done = Path("runs/mine/log.jsonl").read_text().count("\n")
    assert 0 < done < 400
    answer = run("train", recipe, "--out", "runs/mine", "--resume")
    assert answer.code == 0
    epochs = [
        json.loads(line)["epoch"] for line in Path("runs/mine/log.jsonl").read_text().splitlines()
    ]
    assert epochs == list(range(1, 401))
    assert not list(Path("runs").rglob("*.tmp"))
    assert not Path("runs/mine/checkpoints").exists()


@pytest.mark.slow
def test_study_shows_a_live_bar_saves_at_ctrl_c_goes_on_and_keeps_what_is_done(
    run: Run, refuse: Run
) -> None:
    write_recipe("study/teacher.yaml", **TEACHER)
    for name, method in (("baseline", part("methods.Baseline")), ("kd", part("methods.KD"))):
        write_recipe(
            f"study/{name}.yaml", method=method, teacher={"recipe": "teacher.yaml"}, train=LONG
        )
    argv = ["study", "study", "--seeds", "1", "--jobs", "2", "--out", "out"]
    with Terminal(*argv, "--methods", "baseline") as terminal:
        terminal.wait_for(
            lambda text: re.search(
                r"[1-9]/400 \[\d\d:\d\d<[\d:]+, .*epoch.*, baseline seed 0", text
            )
        )
        terminal.ctrl_c()
        assert terminal.end() == 130
    last = terminal.text.strip().splitlines()[-1]
    assert last == "tutelage: interrupted; what is done is kept: give the same command to go on"
    assert "Traceback" not in terminal.text
    assert (
        "is saved: add --resume" in Path("out/baseline/seed0.txt").read_text()
    )  # it was asked once, and had the time
    assert len(list(Path("out/baseline/seed0/checkpoints").iterdir())) == 1
    assert [path.name for path in Path("out").iterdir()] == ["baseline"]

    answer = run(*argv)
    assert answer.code == 0
    assert "\r" not in answer.err
    assert answer.err.splitlines()[-1].startswith("800/800 epochs")
    table = Path("out/table.txt").read_text()
    assert answer.out.startswith(table)
    assert [line.split()[0] for line in table.splitlines()] == ["method", "baseline", "kd"]
    assert "nan" not in table
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "baseline", "kd", "layer_maps.json", "layer_maps.png", "results.json", "table.txt",
    ]  # fmt: skip
    results = json.loads(Path("out/results.json").read_text())
    parts = [
        json.loads(Path(f"out/kd/seed0/{name}.json").read_text()) for name in ("metrics", "memory")
    ]
    assert results["runs"]["kd"]["0"] == parts[0] | parts[1]
    assert results["monitor"] == "top1"

    before = tree(Path("out/baseline")) | tree(Path("out/kd"))
    again = run(*argv)
    assert (again.code, again.err) == (0, "")
    assert again.out == answer.out
    assert tree(Path("out/baseline")) | tree(Path("out/kd")) == before
    says = (
        "out/baseline/seed0/recipe.yaml was run with 'num_labels: 100', ",
        "now it is 'num_labels: 200'",
        "choose another --out",
    )
    refuse(*argv, "--num_labels", 200, says=says)


@pytest.mark.slow
def test_torchrun_hands_sigterm_to_its_processes_which_save() -> None:
    """As Slurm sends it before a time limit."""
    recipe = write_recipe("mine.yaml", train={**LONG, "epochs": 20_000})
    launcher = ["-m", "torch.distributed.run", "--standalone", "--rdzv-conf=read_timeout=1800"]
    argv = [*launcher, "--nproc_per_node=2", "-m", "tutelage", "train", recipe, "--out", "run"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with open("printed.txt", "w") as printed:
        process = subprocess.Popen(
            [sys.executable, *argv], env=environment, stdout=printed, stderr=subprocess.STDOUT
        )
    log = Path("run/log.jsonl")
    Patience().wait_until(
        lambda: (log.exists() and log.read_text()) or process.poll() is not None,
        "the run does not begin",
    )
    process.send_signal(signal.SIGTERM)
    exit_code(process)
    text = Path("printed.txt").read_text()
    assert "tutelage: interrupted; run is saved: add --resume to go on" in text, text
    assert len(list(Path("run/checkpoints").iterdir())) == 1

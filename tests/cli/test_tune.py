"""`tutelage tune` as a user runs it: to the end, killed, and with every mistake."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import TRAIN, network, part, tree, write_recipe
from tests.helpers.patience import Patience
from tutelage.cli.tune import _print_next
from tutelage.engine.lock import locked
from tutelage.recipes import parse_recipe
from tutelage.tune import search
from tutelage.tune.candidates import Candidate
from tutelage.tune.folder import TuneFolder


@pytest.fixture
def recipes(teacher: Path) -> Path:
    """Write a folder of recipes whose teacher is trained, and return it."""
    section = {**network(width=8), "weights": str(teacher)}
    train = {**TRAIN, "epochs": 2}
    for name, method in {
        "kd": part("methods.KD", weight=0.5),
        "fitnet": part("methods.FitNet", layer_pairs={"stage3": "stage3"}),
        "baseline": part("methods.Baseline"),
    }.items():
        write_recipe(f"recipes/{name}.yaml", method=method, teacher=section, train=train)
    return Path("recipes")


def outcome(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "tune.json").read_text())
    return content


def test_the_best_recipe_runs_as_it_is_and_has_the_figure_of_its_trial(
    run: Run, recipes: Path
) -> None:
    answer = run("tune", recipes / "kd.yaml", "--trials", 2, "--out", "out", "--train.epochs", 3)
    assert answer.code == 0
    lines = [line for line in answer.err.splitlines() if line.startswith("trial ")]
    assert len(lines) == 2
    assert lines[0].startswith("trial 1/2  kd: temperature 4, weight 0.5  →  top-1 ")
    assert answer.err.startswith("without a method  →  top-1 ")
    assert "  tutelage study out --seeds 5 --out out-study" in answer.out
    found = outcome("out")
    assert found["methods"]["kd"]["own"] == {"temperature": 4.0, "weight": 0.5}
    assert [trial["position"] for trial in found["trials"]] == [0, 1]
    best = found["trials"][found["best"]]
    assert best["state"] == "done"
    assert best["score"] == max(t["score"] for t in found["trials"] if t["state"] == "done")
    text = Path("out/best.yaml").read_text()
    assert text.startswith(
        f"# kd, tuned: the best of 2 trials on validation data with seed 0, "
        f"top1 {best['score']:.4f}.\n"
    )
    recipe = parse_recipe("out/best.yaml").build()
    assert (recipe.method.temperature, recipe.method.weight) == (
        best["values"]["temperature"],
        best["values"]["weight"],
    )
    assert recipe.train.epochs == 3  # an override of the search
    assert run("train", "out/best.yaml", "--out", "run").code == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["validation"]["top1"] == best["score"]
    assert type(parse_recipe("out/baseline.yaml").build().method).__name__ == "Baseline"
    assert run("train", "out/baseline.yaml", "--out", "plain").code == 0
    plain = json.loads(Path("plain/metrics.json").read_text())
    assert plain["validation"]["top1"] == found["baseline"]
    is_better = best["score"] > found["baseline"]
    assert ("no trial was better than the student" in answer.out) != is_better
    assert not list(Path("out").rglob("checkpoints"))
    assert not list(Path("out").rglob("metrics.json"))  # nothing was judged on test data
    page = Path("out/report.html").read_text()
    assert "What matters" in page
    assert "test data was not read" in page


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    _print_next(TuneFolder(Path("my runs/a?")), Namespace(teacher_dir="my teachers"))
    said = capsys.readouterr().out.splitlines()[-1].split(" --seeds 5 ")
    assert said[0] == "  tutelage study 'my runs/a?'"
    assert said[1] == "--out 'my runs/a?-study' --teacher-dir 'my teachers'"


def test_more_trials_are_added_the_rest_is_kept_and_test_data_is_never_read(
    run: Run, recipes: Path
) -> None:
    sealed = ("--data", "tests.engine.test_trial.SealedDigits")  # whose test part must not be read
    assert run("tune", recipes / "kd.yaml", "--trials", 1, "--out", "out", *sealed).code == 0
    first = outcome("out")["trials"]
    answer = run("tune", recipes, "--trials", 2, "--out", "out", *sealed)  # no baseline
    assert answer.code == 0
    assert [t["method"] for t in outcome("out")["trials"]] == ["fitnet", "kd"]
    assert outcome("out")["trials"][1]["curve"] == first[0]["curve"]
    assert answer.err.splitlines()[1].startswith("trial 1/2  fitnet: weight 1  →  ")
    again = run("tune", recipes, "--trials", 2, "--out", "out", *sealed)
    assert (again.code, again.err.count("\n")) == (0, 1)  # the score of the baseline is known
    assert again.out == answer.out


def test_a_term_that_is_not_finite_fails_its_trial_alone(run: Run, recipes: Path) -> None:
    write_recipe(
        "recipes/wild.yaml",
        method=part("methods.KD", weight=3e38),
        teacher=parse_recipe(recipes / "kd.yaml").config.teacher.as_dict(),
        train={**TRAIN, "gradient_cap": None},
    )
    answer = run("tune", recipes, "--methods", "kd,wild", "--trials", 2, "--out", "out")
    assert answer.code == 0
    assert "trial 2/2  wild: temperature 4, weight 3e+38  →  failed: " in answer.err
    assert [trial["state"] for trial in outcome("out")["trials"]] == ["done", "failed"]
    assert outcome("out")["best"] == 0


def test_mistakes_are_one_sentence_and_leave_nothing(
    refuse: Run, run: Run, recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kd = recipes / "kd.yaml"
    refuse("tune", kd, "--trials", 0, "--out", "out", says=("--trials must be at least 1, got 0",))
    refuse("tune", kd, "--methods", "dkd", "--out", "out", says=("has no recipe dkd.yaml",))
    refuse("tune", "recipes/baseline.yaml", "--out", "out", says=("nothing to tune",))
    refuse(
        "tune", kd, "--methods", "kd,baseline", "--out", "out", says=("search over other recipes",)
    )
    refuse("tune", recipes, "--trials", 1, "--out", "out", says=("one for each of 2 methods",))
    refuse("tune", kd, "--out", "recipes", says=("recipes exists and is no search of ours",))
    refuse("tune", kd, "--out", kd, says=("kd.yaml exists and is no search of ours",))
    refuse("tune", kd, "--out", "out", "--method.weight", "-1", says=("weight",))
    write_recipe(
        "none.yaml",
        method=part("methods.KD"),
        teacher=parse_recipe(kd).config.teacher.as_dict(),
        data=part("tests.engine.test_trial.NoValidation"),
    )
    refuse("tune", "none.yaml", "--out", "out", says=("has no validation part",))
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    refuse("tune", kd, "--out", "out", says=("pip install 'tutelage[tune]'",))


def test_a_folder_that_is_in_use_or_of_another_search_is_refused(
    refuse: Run, run: Run, recipes: Path
) -> None:
    kd = recipes / "kd.yaml"
    parsed = {name: parse_recipe(recipes / f"{name}.yaml") for name in ("fitnet", "kd")}
    candidates = [Candidate.of(name, recipe, recipe) for name, recipe in parsed.items()]
    with TuneFolder(Path("out")).claimed(candidates):
        search.Search(Path("out/tune.db"), candidates, seed=0)
    changed = ("--train.epochs", 1)
    refuse("tune", recipes, "--out", "out", *changed, says=("'epochs: 2', now it is 'epochs: 1'",))
    refuse("tune", kd, "--out", "out", says=("a search over fitnet, kd already",))
    before = tree()
    with locked(Path("out")):
        answer = run("tune", recipes, "--trials", 3, "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert "out is in use by process" in answer.err
    assert tree() == before
    Path("out/tune.db").unlink()
    with closing(sqlite3.connect("out/tune.db")) as file:
        file.execute("create table customers (name text)")
        file.commit()
    refuse("tune", recipes, "--out", "out", says=("it holds other tables",))


def test_a_teacher_that_cannot_teach_ends_the_search_before_it_begins(
    refuse: Run, recipes: Path
) -> None:
    recipe = write_recipe("kd.yaml", method=part("methods.KD"), teacher=network(width=8))
    refuse("tune", recipe, "--out", "out", says=("the teacher scores top1",))


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_same_command(recipes: Path) -> None:
    command = [sys.executable, "-m", "tutelage", "tune", "recipes/kd.yaml", "--trials", "2"]
    options = ["--train.epochs", "30", "--train.save_every", "5"]

    def start(out: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, "--out", out, *options], env=environment)

    process = start("killed")
    log = Path("killed/trials/kd/0000/log.jsonl")
    Patience().wait_until(
        lambda: log.exists() and log.read_text().count("\n") > 10, "the trial made no progress"
    )
    process.kill()
    process.wait()
    assert start("killed").wait() == 0
    assert start("whole").wait() == 0
    unequal = {"seconds"}
    killed, whole = (
        [{k: v for k, v in t.items() if k not in unequal} for t in outcome(out)["trials"]]
        for out in ("killed", "whole")
    )
    assert killed == whole

"""Recommenders on the command line: trained, resumed, evaluated, compared, and in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.cli.conftest import Run
from tests.helpers.commands import part
from tests.helpers.interactions import write_interactions

DATA = part("data.InteractionFiles", root="data", holdout=0.2, validation_users=0.4)
TRAIN = {
    "epochs": 12,
    "batch_size": 128,
    "eval_batch_size": 16,
    "num_threads": 1,
    "gradient_cap": None,
    "schedule": "constant",
    "eval_every": 3,
    "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
}
SETTING: dict[str, Any] = {
    "data": DATA,
    "task": part("tasks.Recommendation", decay=0.01),
    "teacher": {"recipe": "teacher.yaml"},
    "student": {"model": part("models.BPRMF", dim=4)},
    "train": TRAIN,
}
RECIPES: dict[str, Any] = {
    "teacher": {
        "teacher": None,
        "student": {"model": {"init_args": {"dim": 16}}},
        "method": part("methods.Baseline"),
    },
    "baseline": {"method": part("methods.Baseline")},
    "unkd": {"method": part("methods.UnKD", num_groups=2, weight=0.3)},
}


@pytest.fixture
def recipes(here: Path) -> Path:
    """Return a folder of recipes in the working folder, which has the data."""
    write_interactions(here / "data")
    folder = here / "own"
    folder.mkdir()
    for name, content in {"_setting": SETTING, **RECIPES}.items():
        (folder / f"{name}.yaml").write_text(f"# {name}.\n{yaml.safe_dump(content)}")
    return folder


def metrics_of(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(run) / "metrics.json").read_text())
    return content


def test_a_study_and_what_comes_of_its_runs(recipes: Path, run: Run) -> None:
    answer = run("study", "own", "--methods", "baseline,unkd", "--seeds", "1", "--out", "study")
    assert answer.code == 0, answer.err
    header = answer.out.splitlines()[0]
    for label in ("NDCG@20", "Recall@10 unpopular", "Share of places@10 popular"):
        assert label in header
    table = {line.split()[0] for line in answer.out.splitlines() if line}
    assert {"baseline", "unkd"} <= table
    metrics = metrics_of("study/unkd/seed0")
    assert metrics["test"]["ndcg@20"] > 0.3  # of a random order it is about 0.1
    assert metrics["parameters"]["student"] == (60 + 80) * 4
    assert metrics["teacher"]["test"]["ndcg@20"] > 0.3

    evaluated = run("evaluate", "study/unkd/seed0", "--json")
    assert json.loads(evaluated.out) == metrics["test"]

    page = run("report", "study")
    assert page.code == 0, page.err
    html = (Path("study") / "report.html").read_text()
    assert "Recall@10 unpopular" in html
    assert "Every class or group" in html

    predicted = run("predict", "study/unkd/seed0", "u3", "u4", "--top", "5", "--json")
    answers = [json.loads(line) for line in predicted.out.splitlines()]
    best = {answer["input"]: [item["id"] for item in answer["items"]] for answer in answers}
    assert list(best) == ["u3", "u4"]
    assert all(len(items) == 5 for items in best.values())
    lines = Path("data/tiny.inter").read_text().splitlines()
    tables = load_file("study/unkd/seed0/recommender.safetensors")
    ids = json.loads(Path("study/unkd/seed0/ids.json").read_text())
    number = ids["users"].index("u3")
    scores = tables["items"] @ tables["users"][number]
    known = tables["known_items"][slice(*tables["known_offsets"][number : number + 2].tolist())]
    scores[known.long()] = -torch.inf
    assert [ids["items"][item] for item in scores.topk(5).indices.tolist()] == best["u3"]
    # All that the user has, whether it was held out or not.
    has = {line.split("\t")[1] for line in lines if line.startswith("u3\t")}
    assert {ids["items"][item] for item in known.tolist()} == has
    text = run("predict", "study/unkd/seed0", "u3", "--top", "1").out
    assert f"id {best['u3'][0]}  score" in text


def test_patience_ends_a_run_and_a_resumed_run_is_the_same(recipes: Path, run: Run) -> None:
    options = ("own/baseline.yaml", "--train.epochs", "60", "--train.patience", "2")
    answer = run("train", *options, "--out", "whole")
    assert answer.code == 0, answer.err
    whole = metrics_of("whole")
    last, best = whole["last"]["epoch"], whole["best"]["epoch"]
    assert last == best + 2 * 3
    assert last < 60
    assert whole["steps"] == last * (whole["steps"] // last)
    again = run("train", *options, "--out", "whole", "--resume")
    assert again.code == 0
    log = Path("whole/log.jsonl").read_text().splitlines()
    assert len(log) == last


def test_a_run_does_not_go_on_over_reordered_data(
    recipes: Path, run: Run, refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users and items are numbered by first appearance, so rows would change hands."""
    options = ("--teacher", "null", "--train.save_every", "1")
    words = ("train", "own/baseline.yaml", *options, "--out", "cut")

    def full_disk(self: object, *arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tutelage.engine.run_folder.RunFolder.finish", full_disk)
        assert run(*words).code != 0
    path = Path("data/tiny.inter")
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(lines)]) + "\n")
    says = ("cut/checkpoint", "other users or items (60 and 80, here 60 and 80)", "another order")
    refuse(*words, "--resume", says=says)
    path.write_text("\n".join([header, *lines]) + "\n")
    assert run(*words, "--resume").code == 0


def test_factors_of_another_library_teach(recipes: Path, run: Run) -> None:
    answer = run("train", "own/baseline.yaml", "--out", "first")
    assert answer.code == 0, answer.err
    tables = load_file("first/recommender.safetensors")
    ids = json.loads(Path("first/ids.json").read_text())
    # In another order, which the ids undo.
    users, items = torch.randperm(60), torch.randperm(80)
    np.savez("als.npz", users=tables["users"][users], items=tables["items"][items])
    shuffled = {
        "users": [ids["users"][row] for row in users],
        "items": [ids["items"][row] for row in items],
    }
    Path("als.json").write_text(json.dumps(shuffled))
    arguments = {"path": "als.npz", "ids": "als.json"}
    model = {"class_path": "tutelage.models.FactorTables", "init_args": arguments}
    recipe = {"teacher": {"recipe": None, "model": model}, **RECIPES["unkd"]}
    (recipes / "from_als.yaml").write_text(yaml.safe_dump(recipe))
    answer = run("train", "own/from_als.yaml", "--out", "student", "--train.epochs", "3")
    assert answer.code == 0, answer.err
    assert metrics_of("student")["teacher"]["test"] == pytest.approx(metrics_of("first")["test"])


def test_lightgcn_teaches_lightgcn_end_to_end(recipes: Path, run: Run) -> None:
    """The best epoch's student is a copy of the last one, graph and all."""
    graph = {"student": {"model": part("models.LightGCN", dim=4, layers=1)}}
    for name in ("teacher", "unkd"):
        path = recipes / f"{name}.yaml"
        path.write_text(f"# {name}.\n{yaml.safe_dump({**RECIPES[name], **graph})}")
    answer = run("train", "own/unkd.yaml", "--out", "graph", "--train.epochs", "3")
    assert answer.code == 0, answer.err
    assert metrics_of("graph")["test"]["num_samples"] > 0
    assert run("evaluate", "graph").code == 0
    assert run("predict", "graph", "u3").code == 0


def test_rankings_are_kept_and_refused_where_they_do_not_fit(
    recipes: Path, run: Run, refuse: Run
) -> None:
    train = ("train", "own/unkd.yaml", "--train.epochs", "3", "--method.cache")
    assert run(*train, "ranks.safetensors", "--out", "a").code == 0
    written = Path("ranks.safetensors").read_bytes()
    assert run(*train, "ranks.safetensors", "--out", "b").code == 0
    assert Path("ranks.safetensors").read_bytes() == written
    assert metrics_of("a")["test"] == metrics_of("b")["test"]
    # Without a teacher, too.
    alone = ("--teacher", "null", "--out", "c")
    assert run(*train, "ranks.safetensors", *alone).code == 0
    assert metrics_of("c")["test"] == metrics_of("a")["test"]
    says = ("ranks.safetensors does not fit this run", "other settings of the method")
    refuse(*train, "ranks.safetensors", "--method.num_groups", "3", "--out", "d", says=says)
    for options, reason in (
        (("--data.split_seed", "1"), "other items in training, as with another split"),
        (("--data.holdout", "0.5"), "other items in training, as with another split"),
    ):
        says = ("ranks.safetensors does not fit this run", reason)
        words = (*train, "ranks.safetensors", "--teacher", "null", *options, "--out", "d")
        refuse(*words, says=says)
    Path("ranks.safetensors").write_bytes(b"no tensors")
    says = ("holds no rankings of a teacher", "remove the file")
    refuse(*train, "ranks.safetensors", "--teacher", "null", "--out", "d", says=says)


def test_mistakes_are_one_sentence(recipes: Path, run: Run, refuse: Run) -> None:
    refuse("predict", "nowhere", "u3", says=("nowhere",))
    assert run("train", "own/baseline.yaml", "--out", "done", "--train.epochs", "1").code == 0
    says = ("there is no user 'v3'; did you mean ['u3'",)
    refuse("predict", "done", "v3", says=says)
    says = ("there is no user 'v3'", "1 of 3 inputs have no answer; the others were answered")
    answer = run("predict", "done", "u3", "v3", "u4", "--top", "2")
    assert answer.code == 2
    assert all(text in answer.err for text in says)
    assert [line for line in answer.out.splitlines() if not line.startswith(" ")] == ["u3", "u4"]
    refuse("predict", "done", "u3", "--top", "0", says=("--top) is a whole number",))
    refuse("predict", "done", "u3", "--draw", says=("nothing to draw",))
    refuse("export", "done", says=("done/recommender.safetensors holds the vectors of users",))
    Path("done/recommender.safetensors").rename("elsewhere")
    refuse("predict", "done", "u3", says=("recommender.safetensors is missing",))
    Path("elsewhere").rename("done/recommender.safetensors")
    says = ("done was trained on other interactions", "or on another split", "split_seed")
    weights = ("--teacher.recipe", "null", "--teacher.model", "tutelage.models.BPRMF")
    weights = (*weights, "--teacher.model.dim", "4", "--teacher.weights", "done")
    words = ("train", "own/unkd.yaml", *weights, "--data.split_seed", "1", "--out", "x")
    refuse(*words, says=says)
    says = ("num_groups must be from 1 to the number of items with an interaction",)
    refuse("train", "own/unkd.yaml", *weights, "--method.num_groups", "99", "--out", "x", says=says)
    refuse("train", "own/unkd.yaml", "--method.mu", "0", "--out", "x", says=("mu of UnKD",))
    factors = ("--teacher.recipe", "null", "--teacher.model", "tutelage.models.FactorTables")
    missing = (*factors, "--teacher.model.path", "als.npz")
    says = ("own/unkd.yaml: als.npz is missing, or no file", "'items' (I, d)")
    refuse("train", "own/unkd.yaml", *missing, "--out", "x", says=says)
    says = ("data.root: there is no nothing",)
    refuse("train", "own/baseline.yaml", "--data.root", "nothing", "--out", "x", says=says)
    says = ("the data is", "UnKD ranks the items of users")
    digits = ("--data", "tutelage.data.Digits", "--teacher", "null")
    refuse("train", "own/unkd.yaml", *digits, "--out", "x", says=says)

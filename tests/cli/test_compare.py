"""`tutelage compare` on finished runs and on recipes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.commands import TEACHER, Answer, network, write_recipe
from tutelage.similarity import CKAMatrix

Run = Callable[..., Answer]


@pytest.fixture
def trained(run: Run) -> str:
    """Return the folder of a run whose student knows its digits a little."""
    assert run("train", write_recipe("wide.yaml", **TEACHER), "--out", "wide").code == 0
    return "wide"


def test_a_run_and_a_recipe_are_compared_and_the_folder_tells_all(run: Run, trained: str) -> None:
    small = write_recipe("small.yaml")
    answer = run(
        "compare", trained, small, "--num-samples", 200, "--permutations", 20, "--out", "out"
    )
    assert answer.code == 0, answer.err
    assert (
        "small.yaml names no weights: its network is compared as it starts, untrained" in answer.err
    )
    assert "closest right layer" in answer.out
    content = json.loads(Path("out/compare.json").read_text())
    assert content["rows"][:3] == ["stage1", "stage2", "stage3"]
    assert (content["samples"], content["batches"], content["estimator"]) == (
        200,
        8,
        "linear CKA, centered, debiased",
    )
    shape = (len(content["rows"]), len(content["columns"]))
    with np.load("out/compare.npz") as arrays:
        for name in ("value", "sd", "low", "high", "p_value"):
            assert arrays[name].shape == shape
            assert np.allclose(arrays[name], np.array(content[name], dtype=float))
    with Path("out/compare.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == shape[0] * shape[1]
    assert float(lines[1]["value"]) == content["value"][0][1]
    assert {line["verdict"] for line in lines} <= {"trust", "caution", "do not trust"}
    assert all(line["reason"] for line in lines)
    wide = [line for line in lines if float(line["high"]) - float(line["low"]) > 0.2]
    assert wide, "an untrained network's layers should differ between batches"
    assert "trust" not in {line["verdict"] for line in wide}
    again = CKAMatrix.load("out/sums.safetensors").compute()
    assert np.allclose(again.value.numpy(), np.array(content["value"], dtype=float))
    assert Path("out/report.html").read_text().startswith("<!doctype html>")
    assert Path("out/heatmap.png").stat().st_size > 1000
    assert "<svg" in Path("out/heatmap.svg").read_text()


def test_a_network_agrees_with_itself_and_chosen_layers_are_used(run: Run, trained: str) -> None:
    layers = ("--layers-left", "stage3,stage1", "--layers-right", "stage3,stage1")
    assert (
        run("compare", trained, trained, *layers, "--num-samples", 128, "--out", "same").code == 0
    )
    content = json.loads(Path("same/compare.json").read_text())
    assert content["rows"] == content["columns"] == ["stage3", "stage1"]
    assert np.allclose(np.diag(np.array(content["value"])), 1.0)


def test_mistakes_are_told_before_anything_is_written(refuse: Run, trained: str) -> None:
    refuse("compare", trained, "nowhere.yaml", says=("there is no recipe nowhere.yaml",))
    Path("empty").mkdir()
    refuse("compare", trained, "empty", says=("empty is no run folder",))
    refuse(
        "compare",
        trained,
        trained,
        "--layers-left",
        "stage9",
        says=("no module 'stage9'", "did you mean ['stage"),
    )
    refuse(
        "compare",
        trained,
        trained,
        "--num-samples",
        3,
        says=("--num-samples must be at least 4, got 3",),
    )
    refuse(
        "compare",
        trained,
        trained,
        "--out",
        trained,
        says=(f"{trained} is there already; choose another --out",),
    )
    color = write_recipe("color.yaml", student=network(width=4, channels=3))
    refuse("compare", trained, color, says=("color.yaml",))

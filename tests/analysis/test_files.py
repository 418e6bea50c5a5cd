"""A comparison on disk: the same numbers in JSON, CSV and npz."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.analysis import compare_layers, reliability_matrix, write_comparison


@pytest.mark.parametrize("permutations", [0, 3])
@pytest.mark.filterwarnings("ignore:CKA is undefined")
def test_all_files_hold_the_same_cells(tmp_path: Path, permutations: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.zeros_(net[2].weight)
    x = torch.randn(64, 4)
    layers = [["0", "1"], ["1", "2"]]
    matrix = compare_layers([net, net], layers, x.split(16), permutations=permutations)
    result = matrix.compute()
    reports = reliability_matrix([net, net], layers, (x,))
    write_comparison(tmp_path / "out", result, reports, ("wide", "narrow"))

    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert (content["left"], content["right"]) == ("wide", "narrow")
    assert (content["rows"], content["columns"]) == (["0", "1"], ["1", "2"])
    assert (content["samples"], content["batches"], content["skipped"]) == (64, 4, 0)
    assert content["degenerate"] == ["right: 2"]
    assert content["value"] == [[result.value[0, 0], None], [result.value[1, 0], None]]
    assert content["verdict"][0][1] == "do not trust"
    assert (content["p_value"] is None) == (permutations == 0)

    rows = list(csv.DictReader((tmp_path / "out/compare.csv").read_text().splitlines()))
    assert [(row["left"], row["right"]) for row in rows] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "2"),
    ]
    assert float(rows[0]["value"]) == result.value[0, 0]
    assert rows[1]["value"] == ""
    assert rows[1]["reason"] == content["reason"][0][1]
    assert ("p_value" in rows[0]) == (permutations > 0)

    with np.load(tmp_path / "out/compare.npz") as arrays:
        assert np.array_equal(arrays["value"], result.value.numpy(), equal_nan=True)
        assert arrays["rows"].tolist() == ["0", "1"]
        assert ("p_value" in arrays) == (permutations > 0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "compare.csv",
        "compare.json",
        "compare.npz",
    ]


@pytest.mark.parametrize("name", ["compare.csv", "compare.npz", "compare.json"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failure_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, exists: bool
) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    x = torch.randn(32, 4)
    result = compare_layers([net, net], [["0"], ["1"]], [x]).compute()
    reports = reliability_matrix([net, net], [["0"], ["1"]], (x,))
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    with pytest.raises(UserError, match=r"out cannot be written \(No space left on device\)"):
        write_comparison(out, result, reports, ("a", "b"))
    assert out.exists() == exists
    assert not exists or not list(out.iterdir())

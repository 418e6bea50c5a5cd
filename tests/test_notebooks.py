"""The notebooks run from top to bottom, cell by cell as code, and are stored without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs/notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    book = json.loads(path.read_text())
    assert book["nbformat"] == 4
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def run(path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells(path):
        exec(compile("".join(cell["source"]), f"{path.name}, {cell['id']}", "exec"), names)
    return names


def test_there_are_two() -> None:
    assert len(NOTEBOOKS) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs(path: Path) -> None:
    assert code_cells(path)
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_the_loop_distills() -> None:
    results = run(NOTEBOOKS[0])["results"]
    assert results.keys() == {"labels alone", "KD", "RCKA"}
    assert results["KD"] > results["labels alone"]
    assert min(results.values()) > 0.7


def test_layers_agree_more_than_by_chance() -> None:
    names = run(NOTEBOOKS[1])
    assert names["score"] > 0.5
    assert names["result"].value.shape == (3, 3)
    assert abs(names["cka"](names["unrelated"], names["b"])) < 0.1

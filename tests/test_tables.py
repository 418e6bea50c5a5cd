"""The tables in README and docs say what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import tables


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_those_of_the_results(path: Path) -> None:
    assert tables.filled(path.read_text()) == path.read_text(), "run python -m benchmarks.tables"


def test_every_method_has_its_figures_on_its_page() -> None:
    found = {match[2] for path in tables.PAGES for match in tables.REGION.finditer(path.read_text())}
    assert found == {*tables.WHOLE, *tables.NAMES}


def test_a_number_changed_by_hand_is_found() -> None:
    page = "before\n<!-- figures cost -->\n<!-- end of figures -->\nafter"
    made = tables.filled(page)
    cost = json.loads((tables.RESULTS / "loss_cost.json").read_text())["methods"]["KD"]
    assert f"| KD | {cost['ms']:.1f} | {cost['extra_mib']:.0f} |" in made
    assert made.startswith("before")
    assert made.endswith("after")
    assert tables.filled(made) == made
    assert tables.filled(made.replace("| KD | ", "| KD | 9")) == made


def test_signs_and_bold_intervals() -> None:
    row = {"difference": {"mean": 0.02, "interval95": [0.01, 0.03]}}
    assert tables.paired(row) == "**+2.0 [+1.0, +3.0]**"
    row["difference"] = {"mean": -0.002, "interval95": [-0.014, 0.01]}
    assert tables.paired(row) == "−0.2 [−1.4, +1.0]"

"""The tables in README and docs say what the results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import study_results, tables


def marked(path: Path) -> list[str]:
    """Return the names of the tables that are marked in a file."""
    return [match[2] for match in tables.REGION.finditer(path.read_text())]


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_those_of_the_results(path: Path) -> None:
    assert tables.filled(path.read_text()) == path.read_text(), "run python -m benchmarks.tables"


def test_every_table_and_every_method_of_the_study_is_on_a_page() -> None:
    names = {name for path in tables.PAGES for name in marked(path)}
    expected = {*tables.TABLES, *study_results.variants()}
    assert names >= expected
    for name in names - expected:
        assert (tables.RESULTS / f"{name}.json").exists(), f"no table is called {name}"


def test_every_mark_has_an_end() -> None:
    for path in tables.PAGES:
        lines = path.read_text().splitlines()
        starts = [line for line in lines if line.startswith("<!-- figures ")]
        ends = [line for line in lines if line == "<!-- end of figures -->"]
        assert len(marked(path)) == len(starts) == len(ends), path


def test_a_number_changed_by_hand_is_found() -> None:
    page = "before\n<!-- figures cost -->\n<!-- end of figures -->\nafter"
    filled = tables.filled(page)
    cost = json.loads((tables.RESULTS / "loss_cost.json").read_text())["methods"]["KD"]
    assert f"| KD | {cost['ms']:.1f} | {cost['extra_mib']:.0f} |" in filled
    assert filled.startswith("before")
    assert filled.endswith("after")
    assert tables.filled(filled) == filled
    assert tables.filled(filled.replace("| KD | ", "| KD | 9")) == filled


def test_any_table_can_stand_in_any_file() -> None:
    page = "".join(
        f"<!-- figures {name} -->\n<!-- end of figures -->\n"
        for name in ("outliers", "kd", "mni152")
    )
    filled = tables.filled(page)
    assert "| SRD, also on unlabeled clothes |" in filled
    assert "| within the cap | baseline | KD | KD − baseline [95 %] | ECE |" in filled
    ssim = json.loads((tables.RESULTS / "mni152.json").read_text())["summary"]["ssim"]
    mean, std = (100 * ssim["test"]["miou"][key] for key in ("mean", "std"))
    assert f"| SSIM | {mean:.2f} ± {std:.2f} |" in filled
    with pytest.raises(ValueError, match="no table 'elsewhere'"):
        tables.filled("<!-- figures elsewhere -->\n<!-- end of figures -->")


def test_rows_have_the_names_of_the_methods() -> None:
    assert [study_results.title(name) for name in ("baseline", "kd", "fitnet", "residual")] == [
        "Baseline",
        "KD",
        "FitNet",
        "ResidualKD",
    ]
    assert study_results.title("afd_kd") == "AFD + KD"
    assert study_results.title("rcka, no ramp") == "rcka, no ramp"


def test_signs_and_bold_intervals() -> None:
    row = {"difference": {"mean": 0.02, "interval95": [0.01, 0.03]}}
    assert tables.difference(row) == "**+2.0 [+1.0, +3.0]**"
    row["difference"] = {"mean": -0.002, "interval95": [-0.014, 0.01]}
    assert tables.difference(row) == "−0.2 [−1.4, +1.0]"
    row["difference"] = {"mean": -0.02, "interval95": [-0.03, -0.01]}
    assert tables.difference(row) == "−2.0 [−3.0, −1.0]"

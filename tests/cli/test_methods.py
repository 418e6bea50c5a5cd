from __future__ import annotations

import re
from pathlib import Path

from tests.cli.conftest import Run
from tutelage.cli.methods import START

DOCS = Path(__file__).parents[2] / "docs"


def blocks(text: str) -> dict[str, str]:
    """Return what is printed of each method, as one line each."""
    return {
        block.split("  —  ")[0]: " ".join(block.split())
        for block in text.replace("\n    ", " ").splitlines()
        if "  —  " in block
    }


def test_it_lists_every_method_with_what_it_needs_and_where_it_lost(run: Run) -> None:
    answer = run("methods")
    assert (answer.code, answer.err) == (0, "")
    by_name = blocks(answer.out)
    assert {"KD", "RCKA", "PCKA", "CombinedMethod"} & set(by_name) >= {"KD", "RCKA", "PCKA"}
    assert "arXiv 2203.08679" in by_name["DKD"]
    assert "caution beta 8" in by_name["DKD"]
    assert "caution" not in by_name["KD"]
    assert "tunes temperature, weight" in by_name["KD"]
    assert "tunes" not in by_name["Baseline"]
    assert max(map(len, answer.out.splitlines())) <= 80


def test_each_method_has_its_class_path_and_its_page(run: Run) -> None:
    by_name = blocks(run("methods").out)
    assert "class tutelage.methods.KD page docs/methods/kd.md paper" in by_name["KD"]
    for name, block in by_name.items():
        assert f"class tutelage.methods.{name} " in block
        page = re.search(r"page docs/(\S+)", block)
        if name != "UnlabeledData":
            assert page is not None
            assert (DOCS / page[1]).is_file()


def test_it_says_what_to_start_with_for_every_task(run: Run) -> None:
    answer = run("methods")
    first = " ".join(answer.out.split("\n\n")[0].split())
    assert "classification DIST: within the gradient cap" in first
    assert "pose none is certain" in first
    by_name = blocks(answer.out)
    assert "start with this for classification" in by_name["DIST"]
    assert "start with" not in by_name["KD"]
    assert len(START) == 6


def test_the_reasons_are_the_figures_of_the_results() -> None:
    results = (DOCS / "results.md").read_text()
    recommendation = (DOCS / "recommendation.md").read_text()
    for task, (_, measured) in START.items():
        page = recommendation if task == "recommendation" else results
        figures = re.findall(r"[+−]?\d\.\d+(?: \[[^]]+\])?", measured)
        assert figures
        for figure in figures:
            # Printed bold where the interval is above zero.
            assert figure in page.replace("**", ""), f"{task}: {figure}"
    # The tables of the cap are in the order of the gains.
    cap = results.split("<!-- figures cap -->")[1].split("<!-- end of figures -->")[0]
    gains, places = [], []
    for table in cap.strip().split("\n\n"):
        rows = [[cell.strip("* ") for cell in row.split("|")] for row in table.splitlines()[2:]]
        names = [row[1] for row in rows]
        places.append(names.index("DIST") + 1)
        gains.append(rows[places[-1] - 1][3].partition(" ")[0])
    assert gains == ["+3.0", "+2.0", "+3.7", "+3.0", "+1.9", "+0.8"]
    assert sorted(places) == [1, 1, 1, 1, 3, 3]

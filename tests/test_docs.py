"""What docs/conf.py does to pages and docstrings; `make docs` builds the site itself."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    pytest.importorskip("sphinx")
    return runpy.run_path(str(ROOT / "docs/conf.py"))


def as_rst(conf: dict[str, Any], text: str) -> str:
    lines = text.splitlines()
    conf["docstring_to_rst"](None, "function", "name", None, None, lines)
    return "\n".join(lines)


def test_a_formula_stays_as_it_is_written(conf: dict[str, Any]) -> None:
    text = "Return the loss.\n\n    L = a * b | c\n\nIt is a * b."
    expected = "Return the loss.\n\n::\n\n    L = a * b | c\n\nIt is a \\* b."
    assert as_rst(conf, text) == expected


def test_sections_are_left_to_napoleon(conf: dict[str, Any]) -> None:
    text = "Return it.\n\nArgs:\n    first: a `name `.\n\n    second: two.\n\n>>> 2 * 3\n6"
    assert as_rst(conf, text) == text.replace("`name `", "`name`")


def test_every_public_name_is_in_the_reference(conf: dict[str, Any]) -> None:
    pages = "".join(conf["names_of"](package) for package in conf["PACKAGES"].values())
    for name in (ROOT / "tests/public_names.txt").read_text().split():
        assert f":: {name}\n" in pages, name
    for package in conf["PACKAGES"].values():
        assert f".. currentmodule:: {package}\n" in pages


def test_a_notebook_becomes_a_page(conf: dict[str, Any]) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["x = 1\n", "y = 2"]},
    ]
    page = conf["notebook_as_markdown"](json.loads(json.dumps({"cells": cells})))
    assert page == "# Title\ntext\n\n```python\nx = 1\ny = 2\n```\n"


def test_the_navigation_names_pages_that_exist(conf: dict[str, Any]) -> None:
    for pages in conf["NAVIGATION"].values():
        for page in pages:
            files = [ROOT / "docs" / f"{page}.{ending}" for ending in ("md", "ipynb")]
            assert any(file.exists() for file in files), page

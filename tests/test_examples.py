"""Every example runs, and so does the README's."""

from __future__ import annotations

import re
import runpy
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers|accelerate|torch\.utils\.data")
        runpy.run_path(str(path), run_name="__main__")


def test_the_examples_learn() -> None:
    assert runpy.run_path(str(ROOT / "examples/loss_in_your_loop.py"))["main"]() > 0.8


def test_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_readme_names_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(([\w./-]+)\)", text) + re.findall(r"(recipes/[\w./-]+\.yaml)", text):
        assert (ROOT / path).exists(), path

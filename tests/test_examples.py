"""Every example runs, and so does the README's."""

from __future__ import annotations

import re
import runpy
import warnings
from pathlib import Path

import pytest

from tutelage.recipes import load_recipe
from tutelage.recipes.shipped import find_folder, find_recipe, methods_in

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SLOW = ["cka_map", "huggingface_trainer"]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[pytest.mark.slow] if path.stem in SLOW else [],
        )
        for path in EXAMPLES
    ],
)
def test_an_example_runs(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers|accelerate|torch\.utils\.data")
        runpy.run_path(str(path), run_name="__main__")


def test_the_examples_learn() -> None:
    assert runpy.run_path(str(ROOT / "examples/loss_in_your_loop.py"))["main"]() > 0.8


def test_the_method_of_the_example_can_be_named_in_a_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    text = (ROOT / "examples/custom_method.py").read_text()
    ((name, overrides),) = re.findall(r"tutelage train (\S+) \\\n +(.*)", text)
    recipe = load_recipe(name, overrides.split())
    assert recipe.teacher is not None
    assert repr(recipe.method) == "AttentionTransfer(layer='stage2', weight=1000.0)"


def test_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_readme_names_files_that_exist() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", README)
    recipes = re.findall(r"([\w./-]*recipes/[\w./-]+\.yaml)", README)
    for path in links + recipes:
        assert (ROOT / path).exists(), path


def test_the_readme_names_recipes_that_are_shipped() -> None:
    names = re.findall(r"tutelage (?:train|plan) +([\w/-]+)(?![\w./-])", README)
    folders = re.findall(r"tutelage study +([\w/-]+)(?![\w./-])", README)
    assert names
    assert folders
    for name in names:
        assert find_recipe(name), name
    for folder in folders:
        assert methods_in(find_folder(folder)), folder

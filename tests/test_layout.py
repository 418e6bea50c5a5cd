"""The shape of the source tree: short files, one paper one place, no squeezed code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tutelage
import tutelage.methods
from tutelage.core import Method

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/tutelage"
SOURCE = sorted(PACKAGE.rglob("*.py"))
CODE = [
    *SOURCE,
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
]
METHODS = [
    value
    for name in tutelage.methods.__all__
    if isinstance(value := getattr(tutelage.methods, name), type) and issubclass(value, Method)
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def paper_of(method: type[Method]) -> str:
    """Return the name of a method's file or folder below `methods`."""
    return method.__module__.split(".")[2]


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text)), "the file has no docstring"


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_signatures_are_plain(path: Path) -> None:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.args.kwarg is None, f"{node.name} takes **kwargs"
            signature = lines[node.lineno - 1 : node.body[0].lineno]
            assert not any("fmt: skip" in line for line in signature), f"{node.name} is squeezed"


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_one_attribute_is_assigned_at_a_time(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            targets = node.targets[0].elts
            attributes = [target for target in targets if isinstance(target, ast.Attribute)]
            # `sampler.epoch, sampler.start = divmod(...)` unpacks one value and is fine.
            packed = isinstance(node.value, ast.Tuple)
            assert not (attributes and packed), f"line {node.lineno} assigns several attributes"


def test_every_module_of_methods_is_a_paper_or_underscored() -> None:
    papers = {paper_of(method) for method in METHODS}
    for path in (PACKAGE / "methods").iterdir():
        name = path.stem
        if name.startswith("_"):
            continue
        assert name in papers, f"{relative(path)} is neither a paper nor underscored"


def test_every_paper_has_its_facts_a_test_and_a_page() -> None:
    for method in METHODS:
        paper = paper_of(method)
        if paper.startswith("_"):
            continue
        assert method.info.paper, paper
        tests = ROOT / "tests/methods"
        assert (tests / f"test_{paper}.py").exists() or (tests / paper).is_dir(), paper
        assert (ROOT / f"docs/methods/{paper}.md").exists(), paper


def test_tests_mirror_the_source() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.parent.relative_to(ROOT / "tests")
        if folder.parts:
            assert (PACKAGE / folder).is_dir(), f"{relative(path)} mirrors no package"


def test_the_public_names_are_a_checked_in_list() -> None:
    names = (ROOT / "tests/public_names.txt").read_text().split()
    own = [name for name in tutelage.__all__ if name not in tutelage.methods.__all__]
    assert sorted(names) == sorted(own)
    for name in tutelage.__all__:
        assert hasattr(tutelage, name)
        assert name in dir(tutelage)


def test_the_engine_knows_no_method_and_no_images() -> None:
    for path in (PACKAGE / "engine").rglob("*.py"):
        text = path.read_text()
        assert "tutelage.methods" not in text, f"{relative(path)} knows a method"
        if path.name != "previews.py":
            assert "image" not in text.lower(), f"{relative(path)} assumes images"

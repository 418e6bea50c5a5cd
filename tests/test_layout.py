"""The budgets that keep the code readable, checked on every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tutelage
import tutelage.methods
from tutelage.core import Method

ROOT = Path(__file__).parents[1]
SOURCE = sorted((ROOT / "src/tutelage").rglob("*.py"))
CODE = [*SOURCE, *sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_a_file_is_short_and_tells_its_idea(path: Path) -> None:
    text = path.read_text()
    limit = 150 if path.parent.name == "methods" else 300
    assert len(text.splitlines()) <= limit
    assert ast.get_docstring(ast.parse(text)), "the file does not say what it is for"


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_functions_take_few_arguments_and_no_kwargs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = node.args
            assert arguments.kwarg is None, f"{node.name} takes **kwargs"
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            names = [name for name in names if name not in ("self", "cls")]
            if node.name != "__init__":  # a constructor lists all hyper-parameters of a paper
                assert len(names) <= 6, f"{node.name} takes {len(names)} arguments"


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_no_switches_on_attributes(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"getattr", "hasattr", "setattr", "eval", "exec"}, f"line {node.lineno}"


def test_tests_mirror_the_source() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = path.parent.relative_to(ROOT / "tests")
        if folder.parts:
            assert (ROOT / "src/tutelage" / folder).is_dir(), f"{relative(path)} mirrors no package"


def test_the_public_names_are_a_checked_in_list() -> None:
    names = (ROOT / "tests/public_names.txt").read_text().split()
    assert sorted(names) == sorted(tutelage.__all__)
    for name in names:
        assert name in vars(tutelage)


def test_the_engine_knows_no_method() -> None:
    for path in SOURCE:
        if path.parent.name == "engine":
            assert "tutelage.methods" not in path.read_text(), f"{relative(path)} knows a method"


def test_every_method_has_a_card_a_test_and_a_page() -> None:
    for name in tutelage.methods.__all__:
        method = vars(tutelage.methods)[name]
        if isinstance(method, type) and issubclass(method, Method):
            stem = method.__module__.rpartition(".")[2]
            assert method.card.paper, name
            assert (ROOT / f"tests/methods/test_{stem}.py").exists() or stem == "alone", name
            assert (ROOT / f"docs/methods/{stem}.md").exists(), name

"""docs/add-a-method.md is true: its six files, put into a copy of the tree, are a green method."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "docs", "examples", "benchmarks")
BLOCK = re.compile(r"<!-- (file|edit): (\S+) -->\n```\w+\n(.*?)```\n", re.S)


def blocks() -> list[tuple[str, str, str]]:
    """Return (file or edit, path, content) of every block of the page."""
    return BLOCK.findall((ROOT / "docs/add-a-method.md").read_text())


def edited(text: str, edit: str) -> str:
    """Return a text with the `+` lines of an edit, each behind the line before it."""
    lines = text.splitlines()
    position = 0
    for line in edit.splitlines():
        if line.startswith("+"):
            lines.insert(position, line[1:])
            position += 1
        elif line.strip() != "...":
            position = lines.index(line[1:], position) + 1
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the tree with the method of the page in it."""
    tree = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("__pycache__", "results", "*.pyc")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tree / folder, ignore=unwanted)
    for file in ("pyproject.toml", "CHANGELOG.md", "README.md"):
        shutil.copy(ROOT / file, tree / file)
    for kind, path, content in blocks():
        target = tree / path
        if kind == "file":
            assert not target.exists(), path
            target.write_text(content)
        else:
            target.write_text(edited(target.read_text(), content))
    return tree


def run(tree: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_it_takes_six_files(tree: Path) -> None:
    paths = [path for _, path, _ in blocks()]
    assert len(paths) == len(set(paths)) == 6
    for folder in COPIED:
        for path in (tree / folder).rglob("*"):
            relative = str(path.relative_to(tree))
            if path.is_file() and "__pycache__" not in relative and relative not in paths:
                assert filecmp.cmp(path, ROOT / relative, shallow=False), relative
    for path in paths:
        assert (tree / path).exists()


@pytest.mark.slow
def test_the_method_is_green(tree: Path) -> None:
    pytest_command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    run(tree, *pytest_command, "tests/methods/test_sp.py", "src/tutelage/methods/sp.py")
    run(tree, *pytest_command, "tests/test_layout.py")
    chosen = "sp or SP or every_method"
    run(tree, *pytest_command, "tests/methods/test_contract.py", "-k", chosen)
    run(tree, *pytest_command, "tests/recipes/test_shipped.py", "-k", "digits/sp")


def test_the_method_passes_the_checks(tree: Path) -> None:
    touched = [path for _, path, _ in blocks() if path.endswith(".py")]
    run(tree, sys.executable, "-m", "ruff", "check", *touched)
    run(tree, sys.executable, "-m", "ruff", "format", "--check", *touched)


def test_the_command_line_knows_it(tree: Path) -> None:
    script = (
        "import tutelage; from tutelage.recipes import load_recipe; "
        "recipe = load_recipe('classification/digits/sp'); "
        "assert isinstance(recipe.method, tutelage.SP), recipe"
    )
    run(tree, sys.executable, "-c", script)

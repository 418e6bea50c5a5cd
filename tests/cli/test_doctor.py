from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from tests.cli.conftest import Run
from tutelage.cli import doctor_checks

PARTS = {"tutelage", "system", "packages", "devices", "extras", "tasks", "folders", "recipes"}


@pytest.fixture
def few_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two recipes be shipped; reading one of each folder takes seconds."""
    names = ["classification/digits/kd", "classification/digits/rcka"]
    monkeypatch.setattr("tutelage.recipes.shipped.shipped_names", lambda: names)


def needs(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.setattr(doctor_checks.metadata, "requires", lambda name: lines)


def test_a_whole_installation_is_described(run: Run, few_recipes: None) -> None:
    answer = run("doctor", "--json")
    found = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert found.keys() == PARTS | {"problems"}
    assert found["problems"] == []
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["devices"]["threads"] == torch.get_num_threads()
    assert found["recipes"] == {"read": 1, "known": 2, "problems": {}}
    assert set(found["tasks"]) == set(doctor_checks.TASK_NEEDS)
    assert all(text is None for text in found["folders"].values())
    text = run("doctor", "--all-recipes")
    assert text.code == 0
    assert "recipes: 2 of 2 parse (2 are shipped)" in text.out
    assert text.out.endswith("all that is needed is there\n")


def test_what_an_extra_lacks_is_said_for_the_tasks_and_is_no_problem(
    run: Run, few_recipes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(monkeypatch, ["torch>=2", "no-such-package>=1; extra == 'detection'"])
    answer = run("doctor")
    assert answer.code == 0
    assert "no-such-package>=1 is missing: pip install 'tutelage[detection]'" in answer.out
    lines = {line.split()[0]: line for line in answer.out.splitlines() if line.startswith("  ")}
    assert "without average precision (extra detection)" in lines["detection"]
    assert "segmentation    complete" in answer.out


def test_what_is_needed_and_missing_or_old_gives_exit_code_1(
    run: Run, few_recipes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs(monkeypatch, ["torch>=9999", "no-such-package", "tqdm>=4; python_version < '3'"])
    answer = run("doctor")
    assert answer.code == 1
    assert f"PROBLEM: torch {torch.__version__.partition('+')[0]} is installed" in answer.out
    assert "PROBLEM: no-such-package is missing; pip install tutelage again" in answer.out
    assert answer.out.endswith("not whole, see above\n")


def test_a_folder_that_cannot_be_written_and_a_recipe_that_is_damaged_are_problems(
    run: Run, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    Path("runs").write_text("a file")
    monkeypatch.setattr(
        "tutelage.recipes.shipped.shipped_names", lambda: ["classification/no/such"]
    )
    answer = run("doctor", "--json")
    found: Mapping[str, Any] = json.loads(answer.out)
    assert answer.code == 1
    assert "is no folder" in found["folders"]["runs"]
    assert list(found["recipes"]["problems"]) == ["classification/no/such"]
    assert len(found["problems"]) == 2


def test_the_extras_of_a_task_exist() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for task_needs in doctor_checks.TASK_NEEDS.values():
        for extra in task_needs:
            assert f"\n{extra} = [" in text


def test_a_requirement_is_compared_with_what_is_installed() -> None:
    assert doctor_checks.problem_of(Requirement("torch>=2")) is None
    assert doctor_checks.problem_of(Requirement("torch>=9999")) is not None

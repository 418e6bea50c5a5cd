"""What starting needs: the packages import their names at first use, and commands little else."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import tutelage
import tutelage.data

LAZY = ["tutelage", *(f"tutelage.{name}" for name in ("data", "methods", "recipes", "tasks"))]


@pytest.mark.parametrize("package", [*LAZY, "tutelage.analysis", "tutelage.report"])
def test_every_public_name_is_found_and_listed(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_a_function_is_not_hidden_by_the_module_of_its_name() -> None:
    importlib.import_module("tutelage.data.concat")
    assert callable(tutelage.data.concat)


def run(code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return finished.stdout.splitlines()[-1]


def test_submodules_are_attributes_without_an_import_of_their_own() -> None:
    found = run("import tutelage; print(tutelage.similarity.cka, tutelage.methods.kd.kd_loss)")
    assert found.count("function") == 2


LOADED = """
import sys
from tutelage.cli import main
try:
    main({arguments})
except SystemExit:
    pass
print(sorted({names} & set(sys.modules)))
"""


def loaded(arguments: list[str], names: set[str]) -> str:
    return run(LOADED.format(arguments=arguments, names=names))


@pytest.mark.parametrize("command", [[], ["train"], ["study"], ["report"]])
def test_help_imports_no_library_that_takes_long(command: list[str]) -> None:
    slow = {"torch", "numpy", "yaml", "jsonargparse", "accelerate", "matplotlib"}
    assert loaded([*command, "--help"], slow) == "[]"


def test_a_plan_imports_what_it_runs_only() -> None:
    slow = {"torchvision", "torchmetrics", "sklearn.datasets", "matplotlib", "scipy.stats", "timm"}
    assert loaded(["plan", "classification/digits/kd"], slow) == "[]"

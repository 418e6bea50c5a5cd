"""What is known of a teacher from one run is not measured again by the next."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from tests.helpers.runs import make_net, make_recipe
from tutelage import KD, UserError
from tutelage.engine import Recipe, fit


class Counting(nn.Sequential):
    """Counts the images it saw."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


@pytest.fixture
def teacher(teacher_run: Path, tmp_path: Path) -> Path:
    """Return a run folder of a teacher of which nothing is known yet."""
    shutil.copytree(
        teacher_run, tmp_path / "teacher", ignore=lambda folder, names: {"known"} & set(names)
    )
    return tmp_path / "teacher"


def recipe_of(teacher: Path, seed: int = 0, **config: Any) -> tuple[Recipe, Counting]:
    recipe = make_recipe(KD(), teacher)
    recipe.seed = seed
    recipe.num_labels = None
    assert recipe.teacher is not None
    network = Counting(*make_net(16))
    return replace(recipe, teacher=replace(recipe.teacher, model=network, **config)), network


def test_a_second_run_measures_nothing_of_its_teacher_again(teacher: Path, tmp_path: Path) -> None:
    cache = {"cache": "disk", "cache_dir": str(tmp_path / "cache")}
    first, network = recipe_of(teacher, **cache)
    metrics = fit(first, tmp_path / "first")
    # 359 images for validation, for the trial of normalizations and for both passes on test data.
    assert network.seen > 1079 + 3 * 359
    second, network = recipe_of(teacher, seed=1, **cache)
    again = fit(second, tmp_path / "second")
    assert network.seen <= 100  # some samples that are compared with the files, and a first batch
    assert metrics is not None
    assert again is not None
    assert again["teacher"] == metrics["teacher"]
    assert set(metrics["teacher"]) == {"validation", "test"}
    assert 0 < again["test"]["agreement"] <= 1


def test_the_figures_are_those_of_a_run_that_knows_nothing(teacher: Path, tmp_path: Path) -> None:
    fit(recipe_of(teacher)[0], tmp_path / "one")
    cached = recipe_of(teacher, cache="disk", cache_dir=str(tmp_path / "cache"))[0]
    stored = fit(cached, tmp_path / "two")
    shutil.rmtree(teacher / "known")
    live = fit(recipe_of(teacher)[0], tmp_path / "three")
    assert live is not None
    assert stored is not None
    assert stored["teacher"] == live["teacher"]
    assert stored["test"] == pytest.approx(live["test"], abs=1e-2)


def test_other_weights_or_statistics_are_measured_anew(teacher: Path, tmp_path: Path) -> None:
    fit(recipe_of(teacher)[0], tmp_path / "one")
    before = set((teacher / "known").iterdir())
    assert len(before) == 2
    other, _ = recipe_of(teacher, mean=[0.1], std=[1.0])
    fit(other, tmp_path / "two")
    assert len(set((teacher / "known").iterdir()) - before) == 2


def test_a_damaged_record_is_named(teacher: Path, tmp_path: Path) -> None:
    fit(recipe_of(teacher)[0], tmp_path / "one")
    (path,) = (teacher / "known").glob("validation-*")
    for content, says in (('{"a": 1}', "holds no metrics"), ("{", "is not whole")):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"{path.name} {says}.*; remove it to measure the"):
            fit(recipe_of(teacher)[0], tmp_path / "two")


def test_the_teacher_sees_the_test_data_once(teacher: Path, tmp_path: Path) -> None:
    recipe, _ = recipe_of(teacher, cache="memory")
    expected = fit(recipe, tmp_path / "first")
    for path in (teacher / "known").glob("test-*.json"):
        path.unlink()
    recipe, network = recipe_of(teacher, cache="memory")
    metrics = fit(recipe, tmp_path / "second")
    # Training data for the cache, and the 359 test images for the students' and its own metrics.
    assert 1079 + 359 <= network.seen < 1079 + 2 * 359
    assert expected is not None
    assert metrics is not None
    assert metrics["teacher"] == expected["teacher"]

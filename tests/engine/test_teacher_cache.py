"""Runs whose teacher answers from a cache: as with the network, and once for all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.runs import make_recipe
from tutelage import KD, RCKA, Baseline, CombinedMethod, UserError
from tutelage.engine import Recipe, Setup, TeacherConfig, fit, plan
from tutelage.engine.dry_run import check_recipe
from tutelage.engine.teacher_cache import fill_cache


def recipe_of(
    teacher: Path, folder: Path | None, augment: bool = False, seed: int = 0, **config: Any
) -> Recipe:
    method = CombinedMethod([KD(), RCKA({"3": "3"}, ramp=None)])
    recipe = make_recipe(method, teacher, epochs=4, checkpoint="last")
    assert recipe.teacher is not None
    recipe.data.augment = augment  # type: ignore[attr-defined]
    recipe.seed = seed
    if folder is not None:
        config["cache_dir"] = str(folder)
    return replace(recipe, teacher=replace(recipe.teacher, **config))


def weights(recipe: Recipe, out: Path) -> dict[str, Tensor]:
    fit(recipe, out)
    return load_file(out / "student.safetensors")


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_files_give_the_student_of_a_live_teacher(teacher_run: Path, tmp_path: Path) -> None:
    live = weights(recipe_of(teacher_run, None), tmp_path / "live")
    cache = tmp_path / "cache"
    first = weights(recipe_of(teacher_run, cache, cache="disk"), tmp_path / "first")
    written = {path: path.stat().st_mtime_ns for path in files_of(cache)}
    assert written
    second = weights(recipe_of(teacher_run, cache, cache="disk"), tmp_path / "second")
    for name, value in live.items():
        torch.testing.assert_close(first[name], value, atol=1e-4, rtol=0)
        assert torch.equal(second[name], first[name])
    assert {path: path.stat().st_mtime_ns for path in files_of(cache)} == written


def test_repeated_views_are_the_same_in_memory_and_in_files(
    teacher_run: Path, tmp_path: Path
) -> None:
    students = []
    for cache in ("memory", "disk"):
        recipe = recipe_of(
            teacher_run, tmp_path / "cache", augment=True, cache=cache, cache_views=2
        )
        students.append(weights(recipe, tmp_path / cache))
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])
    # As many views as epochs are those of a live teacher.
    live = weights(recipe_of(teacher_run, None, augment=True), tmp_path / "live")
    recipe = recipe_of(teacher_run, tmp_path / "all", augment=True, cache="disk", cache_views=4)
    exact = weights(recipe, tmp_path / "exact")
    for name, value in live.items():
        torch.testing.assert_close(exact[name], value, atol=1e-4, rtol=0)


def test_seeds_share_a_cache_where_they_have_the_same_samples(
    teacher_run: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        recipe = recipe_of(teacher_run, tmp_path / "all", seed=seed, cache="disk")
        recipe.num_labels = None
        fill_cache(Setup.of(recipe), torch.device("cpu"))
        recipe = recipe_of(teacher_run, tmp_path / "few", seed=seed, cache="disk", cache_views=2)
        fill_cache(Setup.of(recipe), torch.device("cpu"))
    # Beside the outputs for test data, which no seed changes.
    assert len(list((tmp_path / "all").iterdir())) == 1 + 1
    assert len(list((tmp_path / "few").iterdir())) == 2 + 1  # the seed draws 200 of the samples


def test_a_plan_writes_nothing(teacher_run: Path, tmp_path: Path) -> None:
    plan(recipe_of(teacher_run, tmp_path / "cache", cache="disk", cache_dtype="float16"))
    assert not (tmp_path / "cache").exists()


def test_a_plan_tells_how_long_a_cache_takes_and_fills_none(teacher_run: Path) -> None:
    asked: list[int] = []
    recipe = recipe_of(teacher_run, None, cache="memory")
    recipe = replace(recipe, train=replace(recipe.train, batch_size=4))
    assert recipe.teacher is not None
    assert recipe.teacher.model is not None
    recipe.teacher.model.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    found = plan(recipe)
    assert 0 < sum(asked) < found.num_samples["train"] / 2
    assert found.cache_seconds > 0
    assert plan(recipe_of(teacher_run, None)).cache_seconds == 0


def test_keys_without_effect_are_refused() -> None:
    with pytest.raises(UserError, match=r"cache_views is of a cache, but teacher\.cache is 'none'"):
        TeacherConfig(cache_views=2)
    with pytest.raises(UserError, match=r"are of files, but teacher\.cache is 'memory'"):
        TeacherConfig(cache="memory", cache_top_k=5)
    with pytest.raises(UserError, match=r"teacher\.cache_views must be at least 2, got 0"):
        TeacherConfig(cache="disk", cache_views=0)


def test_teachers_share_the_keys_of_a_cache(teacher_run: Path) -> None:
    recipe = recipe_of(teacher_run, None)
    assert recipe.teacher is not None
    sections = [replace(recipe.teacher, cache=cache) for cache in ("memory", "disk", "none")]
    with pytest.raises(UserError, match=r"give one value: teachers.a.cache memory, teachers.b.ca"):
        replace(recipe, teacher=None, teachers=dict(zip("abc", sections, strict=True)))


def test_augmentation_without_views_shows_before_a_teacher_is_trained(teacher_run: Path) -> None:
    recipe = recipe_of(teacher_run, None, augment=True, cache="memory")
    with pytest.raises(UserError, match=r"set data.augment to false, or teacher.cache_views"):
        check_recipe(recipe)
    check_recipe(recipe_of(teacher_run, None, augment=True, cache="memory", cache_views=2))


def test_a_method_without_a_teacher_has_nothing_to_store(teacher_run: Path) -> None:
    recipe = recipe_of(teacher_run, None, cache="disk")
    recipe.method = Baseline()
    with pytest.raises(UserError, match="Baseline in this recipe has none; give a recipe with"):
        fill_cache(Setup.of(recipe), torch.device("cpu"))

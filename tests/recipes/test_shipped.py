"""The recipes that come with the package: each parses, is found by name, and can be copied."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.helpers.commands import tree
from tutelage import UserError
from tutelage.recipes import copy_recipe, find_recipe, load_recipe, parse_recipe, shipped_names
from tutelage.recipes._yaml import SETTING, settings_of
from tutelage.recipes.shipped import ROOT, find_folder, first_comment, methods_in

NAMES = shipped_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_parses_and_its_resolved_form_means_the_same(name: str, tmp_path: Path) -> None:
    parsed = parse_recipe(name)
    assert parsed.name == name
    again = tmp_path / "recipe.yaml"
    again.write_text(parsed.text())
    assert parse_recipe(again).text() == parsed.text()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_short_overlay_that_says_what_it_is(name: str) -> None:
    path = find_recipe(name)
    assert first_comment(path)
    keys = yaml.safe_load(path.read_text()).keys()
    assert keys <= {"data", "num_labels", "task", "teacher", "student", "method", "train"}
    assert path.with_name(SETTING) in settings_of(path)
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_batches_are_stated(name: str) -> None:
    config = parse_recipe(name).config
    task = config.task.class_path
    has_small_items = any(kind in task for kind in ("Classification", "Recommendation"))
    expected = 256 if has_small_items else 64 if task.endswith(".Pose") else 8
    assert config.train.eval_batch_size == expected


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_of_a_teacher_is_shipped_and_has_no_teacher(name: str) -> None:
    for teacher in parse_recipe(name).teachers().values():
        if teacher.recipe is not None:
            assert teacher.recipe in NAMES
            assert not parse_recipe(teacher.recipe).teachers()


def test_recipes_are_short_since_they_share_settings() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in ROOT.rglob("*.yaml"))
    assert lines / len(NAMES) < 5.5


def test_a_recipe_is_found_by_name_from_anywhere(here: Path) -> None:
    assert load_recipe("classification/digits/rcka", ["--seed", "4"]).seed == 4
    assert find_folder("classification/digits") == ROOT / "classification/digits"
    assert methods_in(ROOT / "classification/digits")[:3] == ["afd", "afd_kd", "baseline"]
    Path("classification/digits").mkdir(parents=True)
    Path("classification/digits/mine.yaml").touch()
    assert find_folder("classification/digits") == Path("classification/digits")


def test_a_wrong_name_gets_near_misses(refuse: Run) -> None:
    says = (
        "there is no recipe classification/digits/rkca",
        "did you mean ['classification/digits/rcka'",
        "`tutelage recipes` lists the shipped ones",
    )
    refuse("train", "classification/digits/rkca", says=says)
    says = ("no recipe recipes/classification/digits/rcka.yaml", "['classification/digits/rcka'")
    refuse("train", "recipes/classification/digits/rcka.yaml", says=says)
    says = ("classification/digit holds no recipes", "'classification/digits'")
    refuse("study", "classification/digit", "--out", "out", says=says)
    says = ("there is no shipped recipe mine.yaml", "`tutelage recipes` lists them")
    refuse("recipes", "copy", "mine.yaml", "out", says=says)
    refuse("recipes", "kopy", says=("there is no action 'kopy'", "['copy']"))


def test_the_list_shows_every_recipe_with_its_comment(run: Run) -> None:
    lines = run("recipes").out.splitlines()
    rows = {line.split()[0]: line for line in lines if line and not line.startswith("#")}
    assert sorted(rows) == NAMES
    comment = "RCKA: logits and features aligned by their kernels."
    assert rows["classification/digits/rcka"].endswith(f"  {comment}")
    assert any(line.startswith("# A small CNN teaches a smaller one 100") for line in lines)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("classification/digits/rcka", [SETTING, "rcka.yaml", "teacher.yaml"]),
        ("segmentation/mni152/teacher", [SETTING, "teacher.yaml"]),
        (
            "classification/fashion-mnist-vit/kd",
            [
                f"fashion-mnist/{SETTING}",
                "fashion-mnist/teacher.yaml",
                f"fashion-mnist-vit/{SETTING}",
                "fashion-mnist-vit/kd.yaml",
            ],
        ),
        (
            "detection/coco/retinanet/pcka_x101",
            [
                SETTING,
                f"retinanet/{SETTING}",
                "retinanet/pcka_x101.yaml",
                "retinanet/teacher_x101.yaml",
            ],
        ),
    ],
)
def test_a_copy_has_all_it_needs_and_means_the_same(name: str, files: list[str], run: Run) -> None:
    answer = run("recipes", "copy", name, "mine")
    assert answer.code == 0
    copy = Path(answer.out.strip())
    written = [path for path, content in tree(Path("mine")).items() if content is not None]
    assert sorted(written) == sorted(f"mine/{file}" for file in files)
    shipped = parse_recipe(name)
    copied = parse_recipe(copy)
    for key, teacher in copied.teachers().items():
        if teacher.recipe is not None:
            original = shipped.teachers()[key].recipe
            assert Path(teacher.recipe).is_relative_to(Path("mine").absolute())
            assert parse_recipe(teacher.recipe).text() == parse_recipe(original).text()
            copied = copied.replace({f"{key}.recipe": original})
    assert copied.text() == shipped.text()


def test_a_folder_is_copied_whole_and_nothing_is_overwritten(run: Run, refuse: Run) -> None:
    answer = run("recipes", "copy", "classification/digits", "mine")
    assert answer.code == 0
    assert len(answer.out.splitlines()) == len(methods_in(ROOT / "classification/digits"))
    names = {path.name for path in Path("mine").iterdir()}
    assert names == {path.name for path in (ROOT / "classification/digits").iterdir()}
    says = ("mine/_setting.yaml is there already", "choose another folder")
    refuse("recipes", "copy", "classification/digits/kd", "mine", says=says)
    with pytest.raises(UserError, match=r"mine/_setting\.yaml is there already"):
        copy_recipe("classification/fashion-mnist/kd", Path("mine"))


def test_a_copy_can_be_edited_and_planned(run: Run) -> None:
    run("recipes", "copy", "classification/digits/fitnet", "mine")
    setting = Path("mine/_setting.yaml")
    setting.write_text(setting.read_text().replace("num_labels: 100", "num_labels: 50"))
    answer = run("plan", "mine/fitnet.yaml")
    assert answer.code == 0, answer.err
    assert "train 50  validation" in answer.out
    assert "student stage3" in answer.out

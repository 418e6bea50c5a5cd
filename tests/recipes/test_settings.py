"""A recipe on top of the setting files of its folder and of those above."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.helpers.commands import BASE, TEACHER, network, part, write_recipe
from tutelage.recipes import parse_recipe


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


@pytest.fixture(autouse=True)
def setting(here: Path) -> None:
    """Write a setting with all but the method, in the folder `own`."""
    sections = {**BASE, "teacher": {"recipe": "teacher.yaml"}}
    del sections["method"]
    write("own/_setting.yaml", yaml.safe_dump(sections))
    write_recipe("own/teacher.yaml", **{**TEACHER, "teacher": None})


def test_an_overlay_adds_the_method() -> None:
    write("own/kd.yaml", "method: {class_path: tutelage.methods.KD}\n")
    config = parse_recipe("own/kd.yaml").config
    assert config.method.class_path == "tutelage.methods.KD"
    assert config.num_labels == 100
    assert config.train.batch_size == 50


def test_mappings_are_merged_and_null_replaces() -> None:
    write(
        "own/base.yaml",
        "method: {class_path: tutelage.methods.Baseline}\nteacher: null\nnum_labels: null\n"
        "student: {model: {init_args: {width: 5}}}\n"
        "train: {epochs: 7, optimizer: {init_args: {lr: 1e-3}}}\n",
    )
    config = parse_recipe("own/base.yaml").config
    assert config.teacher is None
    assert config.num_labels is None
    assert config.student.model.class_path == "tutelage.models.small_cnn"
    assert config.student.model.init_args.width == 5
    assert (config.train.epochs, config.train.batch_size) == (7, 50)
    assert config.train.optimizer.class_path == "torch.optim.AdamW"
    assert config.train.optimizer.init_args.lr == 0.001


def test_another_class_takes_no_arguments_of_the_former_one() -> None:
    write(
        "own/sgd.yaml",
        "method: {class_path: tutelage.methods.Baseline}\n"
        "train: {optimizer: {class_path: torch.optim.SGD, init_args: {momentum: 0.9}}}\n"
        "student: {model: {class_path: tutelage.models.resnet8, init_args: {num_classes: 10}}}\n",
    )
    config = parse_recipe("own/sgd.yaml").config
    assert config.train.optimizer.init_args.lr == 0.001  # SGD's own default
    assert "width" not in config.student.model.init_args


def test_settings_of_the_folders_above_come_first() -> None:
    write("own/wide/_setting.yaml", "student: {model: {init_args: {width: 9}}}\n")
    write("own/wide/kd.yaml", "method: {class_path: tutelage.methods.KD}\ntrain: {epochs: 2}\n")
    config = parse_recipe("own/wide/kd.yaml").config
    assert config.student.model.init_args.width == 9
    assert (config.train.epochs, config.train.batch_size) == (2, 50)
    write("own/wide/apart/_setting.txt", "")
    write("own/wide/apart/kd.yaml", yaml.safe_dump(BASE))
    assert parse_recipe("own/wide/apart/kd.yaml").config.student.model.init_args.width == 4


def test_the_resolved_recipe_is_complete() -> None:
    write("own/kd.yaml", "method: {class_path: tutelage.methods.KD}\n")
    text = parse_recipe("own/kd.yaml").text()
    write("elsewhere/recipe.yaml", text)
    assert parse_recipe("elsewhere/recipe.yaml").text() == text
    write("own/copy.yaml", text)
    assert parse_recipe("own/copy.yaml").text() == text


def test_mistakes_in_a_setting_are_located(refuse: Run) -> None:
    write("own/kd.yaml", "method: {class_path: tutelage.methods.KD}\n")
    good = Path("own/_setting.yaml").read_text()
    write("own/_setting.yaml", good + "seed: 1\nseed: 2\n")
    line = good.count("\n") + 2
    says = (f"own/_setting.yaml, line {line} is not YAML: the key 'seed' is given twice",)
    refuse("train", "own/kd.yaml", says=says)
    write("own/_setting.yaml", good + "lables: 1\n")
    says = ("own/kd.yaml (with its _setting.yaml): the recipe has no key 'lables'",)
    refuse("train", "own/kd.yaml", says=says)
    write("own/_setting.yaml", "- 1\n")
    refuse("train", "own/kd.yaml", says=("_setting.yaml holds no recipe",))


def test_a_study_leaves_settings_and_teachers_out(refuse: Run) -> None:
    write("own/kd.yaml", "method: {class_path: tutelage.methods.KD}\n")
    says = ("own has no recipe _setting.yaml", "--methods takes names out of ['kd']")
    refuse("study", "own", "--out", "out", "--methods", "_setting", says=says)


def test_a_teacher_on_the_line_is_named_from_the_working_folder(here: Path) -> None:
    write("own/kd.yaml", "method: {class_path: tutelage.methods.KD}\n")
    write("own.yaml", Path("own/teacher.yaml").read_text())
    for override, file in (("own.yaml", "own.yaml"), ("teacher.yaml", "own/teacher.yaml")):
        parsed = parse_recipe("own/kd.yaml", [f"--teacher.recipe={override}"])
        found = Path("own") / parsed.config.teacher.recipe
        assert found.resolve() == here.resolve() / file


def test_several_teachers_are_an_alternative_to_one(refuse: Run) -> None:
    both = {
        "method": part("methods.KD"),
        "teacher": network(width=8),
        "teachers": {"a": network(width=8)},
    }
    says = ("both.yaml: the recipe has both teacher and teachers", "give one of them")
    refuse("train", write_recipe("both.yaml", **both), says=says)
    several = {"a": network(width=8), "b": {"recipe": "classification/digits/teacher"}}
    recipe = write_recipe("several.yaml", method=part("methods.KD"), teachers=several)
    built = parse_recipe(recipe, ["--teachers.a.mean", "[0.5]"]).build()
    assert built.teacher is None
    assert built.teachers["a"].mean == [0.5]
    assert built.teachers["b"].recipe == "classification/digits/teacher"

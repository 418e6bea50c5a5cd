"""The structure of a recipe: sections, classes, teachers, folders and former names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Run
from tests.helpers.commands import BASE, TRAIN, network, part, write_recipe
from tutelage import UserError
from tutelage.recipes import load_recipe

CNN = "tutelage.models.small_cnn"
KD = part("methods.KD")
TEACHER = network(width=8)
OWN = """
from torch import nn
from tutelage import Task
def builder(width=4):
    return nn.Linear(width, 10)
class Unfinished(Task):
    monitor = "top1"
    def inputs(self, batch): return (batch.inputs,)
    def loss(self, output, batch): return nn.functional.cross_entropy(output, batch.labels)
class Unmeasured(Unfinished):
    def metrics(self): return None
    def chance_level(self): return 0.1
"""

MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a class as student": (
        {"student": part("models.small_cnn")},
        ("student has no key 'class_path'; the network stands under model",),
    ),
    "a class as teacher": (
        {"teacher": part("models.small_cnn")},
        ("teacher has no key 'class_pa",),
    ),
    "arguments beside": (
        {"student": {"model": {"class_path": CNN, "width": 3}}},
        ("student.model must be", "has the key 'width'", "init_args: {width: …}"),
    ),
    "no class path": (
        {"student": {"model": {"width": 3}}},
        ("student.model must be a mapping with class_path", f"{{class_path: {CNN}}}"),
    ),
    "arguments in a list": (
        {"student": {"model": {"class_path": CNN, "init_args": [3]}}},
        ("student.model.init_args must be a mapping of arguments to values, got [3]",),
    ),
    "a builtin": ({"student": network("torch.relu")}, ("student.model: its class path names a b",)),
    "a number as optimizer": (
        {"train": {**TRAIN, "optimizer": 3}},
        ("train.optimizer must be a mapping with class_path", "got '3'"),
    ),
    "no optimizer": ({"train": {**TRAIN, "optimizer": None}}, ("train.optimizer is null",)),
    "a bare optimizer": (
        {"train": {**TRAIN, "optimizer": "adamw"}},
        ("class path such as torch.optim.AdamW, got 'adamw'", "mean ['torch.optim.AdamW']?"),
    ),
    "another case": (
        {"train": {**TRAIN, "optimizer": part("torch.optim.Adamw")}},
        ("torch.optim has no 'Adamw'; did you mean ['AdamW']?",),
    ),
    "a teacher's recipe": (
        {"teacher": "teacher.yaml"},
        ("teacher must be a mapping of keys", "{recipe: teacher.yaml}"),
    ),
    "one teacher's recipe": (
        {"teachers": {"a": "teacher.yaml"}},
        ("teachers.a must be a mapping of keys", "{recipe: teacher.yaml}"),
    ),
    "a number as name": ({"teachers": {1: TEACHER}}, ("a teacher's name is text, got 1",)),
    "a slash in a name": ({"teachers": {"a/b": TEACHER}}, ("has no slash, got 'a/b'",)),
    "no teachers": ({"teachers": {}}, ("teachers must be a mapping of names", "got {}")),
    "a type deep inside": (
        {"teacher": {"recipe": 3}},
        ("teacher.recipe must be text or null, got '3'",),
    ),
    "a class that moved": (
        {"method": part("data.Unlabelled")},
        ("tutelage.data has no 'Unlabelled'; it is tutelage.methods.UnlabeledData now",),
    ),
    "an abstract class": (
        {"method": {"class_path": "tutelage.Method"}},
        ("tutelage.Method cannot be used, since it does not define forward",),
    ),
    "nothing for a number": (
        {"train": {**TRAIN, "epochs": None}},
        ("train.epochs is null; give it a value, or leave it out",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_structure_is_one_sentence(name: str, refuse: Run) -> None:
    sections, says = MISTAKES[name]
    refuse("plan", write_recipe("own.yaml", **sections), says=("own.yaml: ", *says))


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("train", "train is empty; write its keys below it"),
        ("student", "student is empty"),
        ("data", "the recipe lacks data"),
        ("seed", "seed is null"),
    ],
)
def test_a_key_with_nothing_behind_it_is_named(key: str, says: str, refuse: Run) -> None:
    Path("own.yaml").write_text(yaml.safe_dump({**BASE, key: None}))
    refuse("plan", "own.yaml", says=(f"own.yaml: {says}",))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--teachers.a.weights", "x"],
            "--teachers.a.weights sets a key of a teacher, but the rec",
        ),
        (["--teacher", "teacher.yaml"], "given as --teacher.recipe teacher.yaml"),
        (["--student.class_path", CNN], f"given as --student.model {CNN}"),
        (["--student", CNN], f"student must be a mapping of keys, got '{CNN}'"),
        (["--train.optimizer", "Adamm"], "did you mean ['torch.optim.Adam'"),
        ([f"--{'x' * 300}", "1"], "… (302 characters) is no option and no key"),
        (["--num_labels", "x" * 300], "… (300 characters)"),
    ],
)
def test_a_mistake_of_structure_on_the_line_is_one_sentence(
    words: list[str], says: str, refuse: Run
) -> None:
    refuse("plan", write_recipe("own.yaml"), *words, says=("on the command line: ", says))


def test_a_key_of_a_teacher_that_is_not_there_gets_the_known_ones(refuse: Run) -> None:
    recipe = write_recipe("own.yaml", teachers={"large": TEACHER}, method=KD)
    says = ("--teachers.larg.weights: the recipe has no teacher 'larg'; did you mean ['large']?",)
    refuse("plan", recipe, "--teachers.larg.weights", "x", says=says)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("c/stage2", "there is no teacher 'c', of which 'c/stage2' would be a layer"),
        ("stage2", "'stage2' does not say whose it is; write it as 'a/stage2'"),
        ("a/stage9", "a layer of the teacher 'a': no module 'stage9' in SmallCNN"),
    ],
)
@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_layer_of_teachers_says_which_network_lacks_it(
    layer: str, says: str, names: str, refuse: Run
) -> None:
    method = part("methods.RCKA", layer_pairs={"stage2": layer})
    teachers = {name: TEACHER for name in names}
    refuse("plan", write_recipe("own.yaml", teachers=teachers, method=method), says=(says,))


def test_one_teacher_by_name_can_be_tapped(run: Run) -> None:
    method = part("methods.RCKA", layer_pairs={"stage2": "a/stage2"})
    recipe = write_recipe("own.yaml", teachers={"a": TEACHER}, method=method)
    assert run("plan", recipe).code == 0


def test_a_layer_of_a_split_student_is_named_as_in_the_recipe(refuse: Run) -> None:
    method = part("methods.ResidualKD", layer_pairs={"stage9": "stage3"})
    says = ("a layer of the student: no module 'stage9' in SmallCNN; did you mean ['stage3'",)
    refuse("plan", write_recipe("own.yaml", teacher=TEACHER, method=method), says=says)


def test_own_functions_and_tasks_that_are_not_complete_are_named(
    refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    own = "own_parts_of_a_test"
    Path(f"{own}.py").write_text(OWN)
    # A factory of networks needs no annotation; one of anything else does.
    says = (f"{own}.builder does not say what it returns", "def builder(...) -> Method")
    refuse("plan", write_recipe("a.yaml", method={"class_path": f"{own}.builder"}), says=says)
    says = (f"{own}.Unfinished cannot be used, since it does not define chance_level and metrics",)
    refuse("plan", write_recipe("c.yaml", task={"class_path": f"{own}.Unfinished"}), says=says)
    says = ("the task (Unmeasured) must return running metrics",)
    refuse("plan", write_recipe("d.yaml", task={"class_path": f"{own}.Unmeasured"}), says=says)


def test_a_task_of_other_data_is_named(refuse: Run) -> None:
    task = part("tasks.Detection", num_classes=10)
    says = ("the task (Detection) cannot use the batches of the data (Digits)",)
    refuse("plan", write_recipe("own.yaml", task=task), says=says)


def test_half_precision_of_a_gpu_is_refused_on_a_cpu(
    refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.engine.setup.needs_cpu", lambda: True)
    says = ("train.precision fp16 needs a GPU",)
    refuse("plan", write_recipe("own.yaml"), "--train.precision", "fp16", says=says)


def test_a_folder_in_place_of_a_recipe_says_what_to_give(refuse: Run) -> None:
    says = ("classification/digits is a folder of recipes", "such as classification/digits/afd")
    refuse("plan", "classification/digits", says=says)
    write_recipe("own/kd.yaml")
    refuse("train", "own", says=("own is a folder of recipes", "own/kd.yaml", "tutelage study own"))
    write_recipe("run/recipe.yaml")
    says = ("run is the folder of a run; its recipe is run/recipe.yaml",)
    refuse("train", "run", says=says)
    says = ("own/kd.yaml is one recipe; a study compares", "give own, and --methods kd")
    refuse("study", "own/kd.yaml", "--out", "out", says=says)
    says = ("is one recipe; a study compares", "give classification/digits, and --methods kd")
    refuse("study", "classification/digits/kd", "--out", "out", says=says)


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("classification/digits/mimic", "classification/digits/fitnet"),
        ("classification/digits/alone", "classification/digits/baseline"),
        ("digits/mimic", "classification/digits/fitnet"),
        ("digits/kd", "classification/digits/kd"),
    ],
)
def test_a_former_or_short_name_gets_the_present_one(name: str, now: str, refuse: Run) -> None:
    refuse("plan", name, says=(f"there is no recipe {name}; did you mean ['{now}']?",))


def test_a_name_that_is_too_long_for_a_file_is_no_recipe() -> None:
    with pytest.raises(UserError, match=r"there is no recipe xxx.*\(300 characters\)"):
        load_recipe("x" * 300)

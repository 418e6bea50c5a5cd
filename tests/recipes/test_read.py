from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Run
from tests.helpers.commands import BASE, TRAIN, network, part, write_recipe
from tutelage import UserError
from tutelage.recipes.read import parse_recipe


def kd(**arguments: Any) -> dict[str, Any]:
    return part("methods.KD", **arguments)


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown key": (
        {"lables": 3},
        ("the recipe has no key 'lables'", "did you mean ['num_labels']?"),
    ),
    "former key": ({"labels": 3}, ("the recipe has no key 'labels'", "['num_labels']?")),
    "former key of the student": (
        {"student": {"network": network()["model"]}},
        ("student has no key 'network'", "did you mean ['model']?"),
    ),
    "former key of the teacher": (
        {"teacher": {"recipe": "x", "remember": True}},
        ("teacher has no key 'remember'", "did you mean ['cache']?"),
    ),
    "former argument": (
        {"method": part("methods.RCKA", pairs={"a": "b"})},
        ("tutelage.methods.RCKA has no argument 'pairs'", "did you mean ['layer_pairs']?"),
    ),
    "former class": (
        {"method": part("methods.Alone")},
        ("tutelage.methods has no 'Alone'", "did you mean ['Baseline']?"),
    ),
    "unknown key of a section": (
        {"train": {"epochz": 3}},
        ("train has no key 'epochz'", "'epochs'"),
    ),
    "unknown key of the student": (
        {"student": {**network(), "wieghts": "x"}},
        ("student has no key 'wieghts'",),
    ),
    "unknown key of the teacher": (
        {"teacher": {"recipee": "x"}},
        ("teacher has no key 'recipee'", "'recipe'"),
    ),
    "unknown argument": (
        {"student": network(widht=3)},
        ("tutelage.models.small_cnn has no argument 'widht'", "'width'"),
    ),
    "unknown argument of the teacher": (
        {"teacher": network(widht=3)},
        ("tutelage.models.small_cnn has no argument 'widht'", "did you mean ['width']?"),
    ),
    "unknown argument deep inside": (
        {"method": part("tutelage.CombinedMethod", methods=[kd(), kd(temp=2)])},
        ("tutelage.methods.KD has no argument 'temp'", "did you mean ['temperature']?"),
    ),
    "unknown argument of the optimizer": (
        {"train": {**TRAIN, "optimizer": part("torch.optim.SGD", lrr=0.1)}},
        ("torch.optim.SGD has no argument 'lrr'", "'lr'"),
    ),
    "no argument at all": (
        {"data": part("data.Digits", root="x")},
        ("tutelage.data.Digits has no argument 'root'",),
    ),
    "not under init_args": (
        {"method": {"class_path": "tutelage.methods.KD", "weight": 1.0}},
        ("method", "init_args"),
    ),
    "text for a number": (
        {"train": {"epochs": "many"}},
        ("train.epochs must be a whole number, got 'many'",),
    ),
    "half a label": (
        {"num_labels": 1.5},
        ("num_labels must be a whole number or null, got '1.5'",),
    ),
    "text for labels": (
        {"num_labels": "all"},
        ("num_labels must be a whole number or null, got 'all'",),
    ),
    "text for an argument": (
        {"student": network(width="wide")},
        ("the argument 'width' of tutelage.models.small_cnn must be a whole number, got 'wide'",),
    ),
    "text for an argument of the teacher": (
        {"teacher": network(width="wide")},
        ("the argument 'width' of tutelage.models.small_cnn must be a whole number, got 'wide'",),
    ),
    "text for an argument of the optimizer": (
        {"train": {**TRAIN, "optimizer": part("torch.optim.SGD", lr="fast")}},
        ("the argument 'lr' of torch.optim.SGD must be a number", "got 'fast'"),
    ),
    "no such choice": (
        {"train": {**TRAIN, "schedule": "linear"}},
        ("train.schedule must be one of ['cosine', 'step', 'constant'], got 'linear'",),
    ),
    "not a list": (
        {"train": {**TRAIN, "milestones": 30}},
        ("train.milestones must be a list, got '30'",),
    ),
    "not a truth": (
        {"train": {**TRAIN, "compile": "perhaps"}},
        ("train.compile must be true or false",),
    ),
    "pairs as a list": (
        {"method": part("methods.RCKA", layer_pairs=["a"])},
        ("'layer_pairs'", "must be a mapping such as {a: b}"),
    ),
    "a section as text": ({"train": "long"}, ("train must be a mapping of keys, got 'long'",)),
    "the teacher as text": ({"teacher": "big"}, ("teacher must be a mapping of keys", "got 'big'")),
    "no data": ({"data": None}, ("the recipe lacks data",)),
    "no student": ({"student": None}, ("the recipe lacks student.model",)),
    "no method": ({"method": None}, ("the recipe lacks method",)),
    "a method as a number": (
        {"method": 3},
        ("method must be a mapping with class_path and init_args, got '3'",),
    ),
    "a bare name": (
        {"method": part("kd")},
        ("method must be a class path such as tutelage.methods.KD, got 'kd'",),
    ),
    "no such class": (
        {"method": part("methods.KDD")},
        ("tutelage.methods has no 'KDD'", "did you mean ['KD'"),
    ),
    "no such class of the teacher": (
        {"teacher": network("models.smal_cnn")},
        ("has no 'smal_cnn'", "'small_cnn'"),
    ),
    "no such module": (
        {"student": network("tutelage.modelz.small_cnn")},
        ("tutelage has no 'modelz'", "'models'"),
    ),
    "no such package": (
        {"student": network("fastnets.Net")},
        ("no module 'fastnets' for fastnets.Net", "installed"),
    ),
    "another kind of class": (
        {"method": part("models.small_cnn")},
        ("tutelage.models.small_cnn is no Method",),
    ),
    "another kind of data": (
        {"data": part("torch.nn.ReLU")},
        ("torch.nn.ReLU is no Data; known are [",),
    ),
    "no optimizer": (
        {"train": {"optimizer": part("torch.nn.ReLU")}},
        ("torch.nn.ReLU is no Optimizer",),
    ),
    "an argument is missing": (
        {"data": part("data.CIFAR10")},
        ("tutelage.data.CIFAR10 needs root",),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_recipe_is_one_sentence(name: str, refuse: Run) -> None:
    sections, says = MISTAKES[name]
    refuse("train", write_recipe("mine.yaml", **sections), says=("mine.yaml: ", *says))


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("workers", "num_workers"),
        ("threads", "num_threads"),
        ("keep", "checkpoint"),
        ("evaluate_every", "eval_every"),
        ("checkpoint_every", "save_every"),
        ("map_every", "cka_every"),
        ("clip_norm", "max_grad_norm"),
        ("ema", "ema_decay"),
        ("decay_vectors", "weight_decay_norm_and_bias"),
        ("undecayed", "no_weight_decay"),
        ("trackers", "log_with"),
    ],
)
def test_a_former_key_of_train_gets_the_new_one(former: str, now: str, refuse: Run) -> None:
    recipe = write_recipe("mine.yaml", train={**TRAIN, former: 1})
    says = (f"mine.yaml: train has no key '{former}'; did you mean ['{now}'",)
    refuse("train", recipe, says=says)
    says = (f"--train.{former} is no option and no key", f"did you mean ['train.{now}'")
    refuse("train", write_recipe("good.yaml"), f"--train.{former}", 1, says=says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2\nb: }", ("mine.yaml, line 2 is not YAML", "expected ',' or ']'")),
        ("", ("mine.yaml holds no recipe", "data, task, student, method")),
        ("- 1\n- 2\n", ("mine.yaml holds no recipe",)),
        ("just text", ("mine.yaml holds no recipe",)),
        (yaml.safe_dump(BASE) + "seed: 1\nseed: 2\n", ("the key 'seed' is given twice", ", line ")),
        (b"\xff\xfe\x00", ("mine.yaml is not YAML",)),
    ],
)
def test_what_is_no_recipe_is_one_sentence(
    text: str | bytes, says: tuple[str, ...], refuse: Run
) -> None:
    Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in ("train", "plan"):
        refuse(command, "mine.yaml", says=says)


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_missing_recipe_is_one_sentence(command: str, refuse: Run) -> None:
    refuse(
        command,
        "nowhere.yaml",
        says=("there is no recipe nowhere.yaml", "`tutelage recipes` lists the shipped ones"),
    )
    refuse(command, ".", says=("there is no recipe .",))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--epochs", "3"],
            ("--epochs is no option and no key of the recipe", "did you mean ['train.epochs']?"),
        ),
        (["--lab", "3"], ("--lab is no option and no key", "did you mean ['num_labels']?")),
        (["--train.epochz", "3"], ("--train.epochz", "'train.epochs'")),
        (["--train.epochs", "three"], ("train.epochs must be a whole number, got 'three'",)),
        (["--train.epochs"], ("--train.epochs needs a value",)),
        (["--data.root", "x"], ("tutelage.data.Digits has no argument 'root'",)),
        (["--teacher.wieghts", "x"], ("teacher has no key 'wieghts'", "'weights'")),
        (["stray"], ("'stray' is too much", "--key value")),
    ],
)
def test_a_mistake_on_the_line_is_not_blamed_on_the_file(
    words: list[str], says: tuple[str, ...], refuse: Run
) -> None:
    refuse("train", write_recipe("mine.yaml"), *words, says=("on the command line: ", *says))


def test_another_recipe_on_top_is_refused(refuse: Run) -> None:
    refuse(
        "train",
        write_recipe("mine.yaml"),
        "--config",
        "other.yaml",
        says=("--config is no key of a recipe",),
    )


def test_a_key_on_the_line_wins() -> None:
    config = parse_recipe(
        write_recipe("mine.yaml"), ["--train.epochs", "7", "--student.model.width=9"]
    ).config
    assert (config.train.epochs, config.student.model.init_args.width) == (7, 9)
    assert config.train.optimizer.init_args.lr == 0.01


def test_a_recipe_without_optimiser_says_which_one_it_had() -> None:
    parsed = parse_recipe(
        write_recipe("mine.yaml", train={"epochs": 1}), ["--train.optimizer.lr", "0.5"]
    )
    resolved = yaml.safe_load(parsed.text())
    assert resolved["train"]["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert resolved["train"]["optimizer"]["init_args"]["lr"] == 0.5
    Path("again.yaml").write_text(parsed.text())
    assert parse_recipe("again.yaml").text() == parsed.text()


def test_the_default_optimiser_lends_nothing_to_another_one() -> None:
    recipe = write_recipe(
        "mine.yaml", train={"epochs": 1, "optimizer": part("torch.optim.SGD", lr=0.1)}
    )
    assert parse_recipe(recipe).config.train.optimizer.init_args.weight_decay == 0
    recipe = write_recipe("mine.yaml", train={"epochs": 1})
    assert (
        parse_recipe(
            recipe, ["--train.optimizer", "torch.optim.SGD"]
        ).config.train.optimizer.init_args.lr
        == 0.001
    )


BUILDS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a network raises": (
        {
            "student": network(
                "torch.nn.Conv2d", in_channels=3, out_channels=4, kernel_size=3, groups=2
            )
        },
        ("student (torch.nn.Conv2d) cannot be built: ValueError", "must be divisible by groups"),
    ),
    "a network refuses": (
        {"student": network(width=0)},
        ("student (tutelage.models.small_cnn)", "width of at least 1"),
    ),
    "a method refuses": (
        {"method": kd(temperature=0.0)},
        ("method (tutelage.methods.KD)", "must be positive, got 0.0"),
    ),
    "no epochs": ({"train": {**TRAIN, "epochs": 0}}, ("train.epochs must be at least 1, got 0",)),
    "an endless cap": (
        {"train": {**TRAIN, "gradient_cap": float("inf")}},
        ("train.gradient_cap is a positive number, got inf", "null takes"),
    ),
    "a cap without a number": (
        {"train": {**TRAIN, "gradient_cap": ""}},
        ("train.gradient_cap must be a number or null, got ''",),
    ),
    "no threads": (
        {"train": {**TRAIN, "num_threads": 0}},
        ("train.num_threads must be at least 1, got 0",),
    ),
    "no tracker": (
        {"train": {**TRAIN, "log_with": ["tensorbord"]}},
        ("no tracker 'tensorbord'", "'tensorboard'"),
    ),
    "tracker to be installed": (
        {"train": {**TRAIN, "log_with": ["aim"]}},
        ("'aim' is not installed", "pip install aim"),
    ),
    "a seed below 0": ({"seed": -1}, ("seed is a whole number from 0", "got -1")),
    "one class": (
        {"task": part("tasks.Classification", num_classes=1)},
        ("task", "at least 2, got 1"),
    ),
    "fewer classes": (
        {"task": part("tasks.Classification", num_classes=7)},
        ("data has 10 classes", "num_classes is 7"),
    ),
    "more classes": (
        {"task": part("tasks.Classification", num_classes=12)},
        ("data has 10 classes", "is 12"),
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_what_cannot_be_built_is_one_sentence(name: str, refuse: Run) -> None:
    sections, says = BUILDS[name]
    refuse("train", write_recipe("mine.yaml", **sections), says=says)


OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        if width > 8:
            raise RuntimeError("too wide")
        self.classifier = nn.Linear(64 if width < 6 else 65, 10)
    def forward(self, images):
        return self.classifier(images.flatten(1))
"""


def test_a_network_in_the_users_folder_is_found_and_its_errors_are_located(
    run: Run, refuse: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    Path("own_nets_of_a_test.py").write_text(OWN)
    Path("broken_nets_of_a_test.py").write_text("1 / 0")
    own = "own_nets_of_a_test.Net"
    refuse(
        "train",
        write_recipe("wide.yaml", student=network(own, width=9)),
        says=(
            f"student ({own}) cannot be built: RuntimeError: too wide ",
            "(own_nets_of_a_test.py, line 7)",
        ),
    )
    refuse(
        "train",
        write_recipe("shape.yaml", student=network(own, width=7)),
        says=(
            "the student (Net) fails on a batch of inputs (50, 1, 8, 8)",
            "(own_nets_of_a_test.py, line 10)",
        ),
    )
    refuse(
        "train",
        write_recipe("broken.yaml", student=network("broken_nets_of_a_test.Net")),
        says=(
            "broken_nets_of_a_test.py cannot be imported: ZeroDivisionError",
            "(broken_nets_of_a_test.py, line 1)",
        ),
    )
    assert run("train", write_recipe("good.yaml", student=network(own)), "--out", "run").code == 0


def test_the_python_side_hears_of_a_bad_seed_too() -> None:
    with pytest.raises(UserError, match="seed is a whole number"):
        parse_recipe(write_recipe("mine.yaml"), ["--seed", str(2**32)]).build()

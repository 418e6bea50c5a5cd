"""Recipes that are built in Python: values of another type, and keys without effect."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tutelage import KD, Classification, FrozenTeacher, UserError
from tutelage.data import Digits
from tutelage.recipes import Recipe, StudentConfig, TeacherConfig, TrainConfig

NETWORK = nn.Linear(8, 3)

TRAIN: dict[str, tuple[dict[str, Any], str]] = {
    "a choice": ({"schedule": "cosin"}, r"schedule must be one of \['cosine', .*the text 'cosin'"),
    "a precision": ({"precision": "fp8"}, r"precision must be one of \['no', 'bf16', 'fp16'\]"),
    "text for a number": ({"epochs": "3"}, "epochs must be a whole number, got the text '3'"),
    "half an epoch": ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
    "truth for a number": ({"epochs": True}, "epochs must be a whole number, got True"),
    "nothing": ({"batch_size": None}, "batch_size must be a whole number, got None"),
    "text for a rate": ({"gamma": "a"}, "gamma must be a number, got the text 'a'"),
    "a negative gamma": ({"gamma": -0.1}, "gamma is the positive factor"),
    "text for a share": ({"ema_decay": "a"}, "ema_decay must be a number or None"),
    "text for truth": ({"compile": "yes"}, "compile must be True or False"),
    "one milestone": ({"milestones": 3}, "milestones must be a list of whole numbers, got 3"),
    "half a milestone": ({"milestones": [1.5]}, r"a list of whole numbers, got \[1.5\]"),
    "one pattern": ({"no_weight_decay": "bias"}, r"must be a list of texts, .*write \['bias'\]"),
    "one tracker": ({"log_with": "tensorboard"}, r"write \['tensorboard'\]"),
    "an optimizer's name": ({"optimizer": "adam"}, r"functools.partial\(torch.optim.SGD, lr=0.1\)"),
    "an optimizer": (
        {"optimizer": torch.optim.SGD(NETWORK.parameters(), lr=0.1)},
        "optimizer must be a function of the parameters, .*got a SGD",
    ),
    "milestones without steps": ({"milestones": [2]}, "milestones are of the schedule 'step'"),
    "a long warm-up": (
        {"epochs": 3, "warmup_epochs": 5},
        "warmup_epochs is 5, but the run has 3 epochs",
    ),
}


@pytest.mark.parametrize("name", TRAIN)
def test_a_wrong_key_of_train_is_named(name: str) -> None:
    arguments, says = TRAIN[name]
    with pytest.raises(UserError, match=f"train.{says}|{says}"):
        TrainConfig(**arguments)


def test_values_of_the_right_types_pass() -> None:
    TrainConfig(
        epochs=3,
        warmup_epochs=3,
        gamma=1,
        schedule="step",
        milestones=range(2),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        no_weight_decay=("bias",),
    )
    StudentConfig(NETWORK, weights=Path("run"), mean=(0, 0.5), std=[1, 1])  # type: ignore[arg-type]
    TeacherConfig(recipe="teacher.yaml")


SECTIONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a class": (
        StudentConfig,
        {"model": nn.Linear},
        "student.model must be a Module.*class Linear",
    ),
    "a name": (TeacherConfig, {"model": "resnet50"}, "teacher.model must be a Module.*'resnet50'"),
    "one mean": (
        StudentConfig,
        {"model": NETWORK, "mean": 0.5},
        "student.mean must be a list of num",
    ),
    "a cache": (
        TeacherConfig,
        {"cache": "tape"},
        r"teacher.cache must be one of \['none', 'memory', 'disk'\]",
    ),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_wrong_key_of_a_network_is_named(name: str) -> None:
    section, arguments, says = SECTIONS[name]
    with pytest.raises(UserError, match=says):
        section(**arguments)


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"data": "digits"}, r"data must be a Data, .*Digits\(\), got the text 'digits'"),
    "student": ({"student": NETWORK}, r"StudentConfig\(network\), got a Linear"),
    "method": ({"method": KD}, r"method must be a Method, .*KD\(\), got the class KD"),
    "teacher": ({"teacher": FrozenTeacher(NETWORK)}, r"TeacherConfig\(network\).*a FrozenTeacher"),
    "teachers": ({"teachers": {1: TeacherConfig(NETWORK)}}, "teachers must be a mapping of names"),
    "train": ({"train": {"epochs": 3}}, r"train must be a TrainConfig, .*got \{'epochs': 3\}"),
    "seed": ({"seed": "1"}, "seed must be a whole number, got the text '1'"),
    "num_labels": ({"num_labels": "all"}, "num_labels must be a whole number or None"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_wrong_section_is_named(name: str) -> None:
    wrong, says = RECIPES[name]
    sections = {
        "data": Digits(),
        "task": Classification(num_classes=10),
        "student": StudentConfig(NETWORK),
        "method": KD(),
    }
    Recipe(**sections)
    with pytest.raises(UserError, match=says):
        Recipe(**{**sections, **wrong})

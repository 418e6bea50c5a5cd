"""A network from a run folder comes with the classes and the statistics of its own run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.core.normalization import normalization
from tutelage.data import Data, ImageFolder
from tutelage.engine import StudentConfig, TeacherConfig
from tutelage.engine.checks.student_facts import read_student_facts
from tutelage.engine.setup import ready_network
from tutelage.io import write_tensors

CLASSES = ["ant", "bee", "cat"]


class Pictures(ImageFolder):
    """Data with given classes, of which nothing is read."""

    def __init__(self, classes: list[str], mean: float | None = 0.4) -> None:
        self.names = classes
        self.mean = None if mean is None else [mean] * 3
        self.std = None if mean is None else [0.2] * 3

    @property
    def classes(self) -> list[str]:
        return self.names


def write_run(folder: Path, **facts: Any) -> str:
    folder.mkdir()
    write_tensors(folder / "student.safetensors", net().state_dict())
    own = {"model": "Conv2d", "mean": [0.5] * 3, "std": [0.12] * 3, "classes": CLASSES, **facts}
    (folder / "student.json").write_text(json.dumps(own))
    return str(folder)


def net() -> nn.Module:
    return nn.Conv2d(3, 3, 1)


def ready(config: StudentConfig | TeacherConfig, data: Data | None = None) -> nn.Module:
    data = Pictures(CLASSES) if data is None else data
    section = "teacher" if isinstance(config, TeacherConfig) else "student"
    return ready_network(config, data, section)


@pytest.mark.parametrize("kind", [TeacherConfig, StudentConfig])
@pytest.mark.parametrize("file", ["", "/student.safetensors"])
def test_the_statistics_are_those_of_the_run(
    tmp_path: Path, kind: type, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run") + file
    assert normalization(ready(kind(net(), weights=run))) == ([0.5] * 3, [0.12] * 3)
    assert capsys.readouterr().err == ""
    stated = kind(net(), weights=run, mean=[0.4] * 3, std=[0.12] * 3)
    assert normalization(ready(stated)) == ([0.4] * 3, [0.12] * 3)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "mean is [0.4, 0.4, 0.4]" in told
    assert "was trained with [0.5, 0.5, 0.5]; the recipe's is taken" in told


def test_without_a_run_they_are_those_of_the_data(tmp_path: Path) -> None:
    write_tensors(tmp_path / "plain.safetensors", net().state_dict())
    config = TeacherConfig(net(), weights=str(tmp_path / "plain.safetensors"))
    assert normalization(ready(config)) == ([0.4] * 3, [0.2] * 3)
    assert normalization(ready(StudentConfig(net()))) == ([0.4] * 3, [0.2] * 3)


def test_a_run_on_inputs_as_they_are_gets_them_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", mean=None, std=None)
    assert normalization(ready(TeacherConfig(net(), weights=run))) is None


@pytest.mark.parametrize("names", [["bee", "ant", "cat"], ["ant", "cat", "zebra"]])
@pytest.mark.parametrize("preflight", [True, False])
def test_classes_in_other_places_are_refused(
    tmp_path: Path, names: list[str], preflight: bool
) -> None:
    run = write_run(tmp_path / "run")
    says = r"learned the classes \['ant', 'bee', 'cat'\], but the data has .*same order"
    with pytest.raises(UserError, match=f"teacher: .*{says}.*remove its folder"):
        ready(TeacherConfig(net(), weights=run, preflight=preflight), Pictures(names))
    with pytest.raises(UserError, match=f"student: .*{says}"):
        ready(StudentConfig(net(), weights=run), Pictures(names))


def test_other_classes_are_refused_unless_they_are_learned_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    data = Pictures(["x", "y", "z"])
    with pytest.raises(UserError, match="learned the classes"):
        ready(TeacherConfig(net(), weights=run), data)
    for config in (StudentConfig(net(), weights=run), TeacherConfig(net(), weights=run)):
        if isinstance(config, TeacherConfig):
            config.preflight = False  # a method may read its layers alone
        ready(config, data)
        assert "warning: " in (told := capsys.readouterr().err)
        assert "learned the classes ['ant', 'bee', 'cat'], but the data has ['x', 'y', 'z']" in told


def test_long_lists_name_the_first_difference(tmp_path: Path) -> None:
    names = [f"class{number:03d}" for number in range(100)]
    run = write_run(tmp_path / "run", classes=names)
    other = [*names[:50], "other", *names[50:-1]]
    with pytest.raises(UserError, match=r"class 50 was 'class050' and is 'other'"):
        ready(TeacherConfig(net(), weights=run), Pictures(other))


@pytest.mark.parametrize(
    "facts",
    [
        {"classes": "abc"},
        {"classes": [1, 2]},
        {"mean": "0.5"},
        {"mean": [None]},
        {"mean": 0.5},
        {"std": None},
        {"mean": [0.5]},
        {"mean": {"a": 1}},
    ],
)
def test_a_file_of_another_shape_is_one_sentence(tmp_path: Path, facts: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"student\.json.*; give the --out of a finished run"):
        read_student_facts(write_run(tmp_path / "run", **facts))


def test_weights_of_no_run_have_no_facts(tmp_path: Path) -> None:
    assert read_student_facts(tmp_path / "any.pth") is None
    torch.save({}, tmp_path / "any.pth")
    assert read_student_facts(tmp_path / "any.pth") is None


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_run(tmp_path / "run")
    network = ready(TeacherConfig(model=net(), weights="~/run"))
    assert normalization(network) == ([0.5] * 3, [0.12] * 3)

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.helpers.commands import TRAIN, network, part, tree, write_image_folder, write_recipe


@pytest.fixture
def finished(run: Run, teacher: Path, here: Path) -> Path:
    """Return a finished run with a teacher."""
    spec = {**network(width=8), "weights": "weights"}
    shutil.copytree(teacher, here / "weights")
    sections = {"method": part("methods.KD"), "teacher": spec, "train": {**TRAIN, "epochs": 3}}
    assert run("train", write_recipe("mine.yaml", **sections), "--out", "finished").code == 0
    return here / "finished"


def test_it_gives_the_figures_of_the_run_to_the_last_digit(finished: Path, run: Run) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    before = tree()
    answer = run("evaluate", "finished", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert json.loads(answer.out) == metrics["test"]
    validation = json.loads(run("evaluate", "finished", "--json", "--split", "validation").out)
    assert metrics["validation"].items() <= validation.items()
    assert run("evaluate", "finished").out.startswith(
        f"test top1 {metrics['test']['top1']:.4g}  top5 "
    )
    assert tree() == before


def test_a_fitted_temperature_is_named_with_what_it_changes(run: Run) -> None:
    train = {**TRAIN, "epochs": 2, "calibrate": "temperature"}
    answer = run("train", write_recipe("calibrated.yaml", train=train), "--out", "run")
    calibration = json.loads(Path("run/metrics.json").read_text())["calibration"]
    said = f"at temperature {calibration['temperature']:.3g}, which exports and predictions have: "
    line = f"{said}nll {calibration['test']['nll']:.4g}  ece {calibration['test']['ece']:.4g}"
    assert answer.out.splitlines()[-1] == line
    assert run("evaluate", "run").out.splitlines()[-1] == line


def test_without_the_teachers_weights_it_leaves_out_what_needs_them(
    finished: Path, run: Run
) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    shutil.rmtree("weights")
    answer = run("evaluate", "finished", "--json")
    assert answer.code == 0
    assert (
        "without agreement and teacher_kl: the teacher's weights are not at weights" in answer.err
    )
    alone = {
        name: value
        for name, value in metrics["test"].items()
        if name not in ("agreement", "teacher_kl")
    }
    assert json.loads(answer.out) == alone


def test_what_is_no_finished_run_is_one_sentence(finished: Path, refuse: Run) -> None:
    refuse("evaluate", "nowhere", says=("nowhere is no run folder", "--out of a finished run"))
    says = ("student.safetensors holds", "check the network's arguments")
    refuse("evaluate", "finished", "--student.model.width", 8, says=says)
    refuse(
        "evaluate",
        "finished",
        "--part.x",
        8,
        says=("--part.x is no option and no key of the recipe",),
    )
    (finished / "student.json").write_text('{"mean')
    says = ("student.json is not whole", "give the --out of a finished run")
    refuse("evaluate", "finished", says=says)
    (finished / "student.json").write_text("{}")
    refuse("evaluate", "finished", says=("student.json cannot be read (it lacks ['mean', 'std'",))
    (finished / "student.json").unlink()
    refuse("evaluate", "finished", says=("student.json cannot be read",))
    (finished / "student.safetensors").unlink()
    refuse("evaluate", "finished", says=("there are no weights at finished/student.safetensors",))


def test_data_with_other_classes_are_refused(run: Run, refuse: Run, here: Path) -> None:
    write_image_folder(here / "photos")
    sections = {
        "data": part("data.ImageFolder", root="photos", size=8),
        "task": part("tasks.Classification", num_classes=3),
        "student": network(num_classes=3, channels=3, width=4),
        "num_labels": None,
        "train": {**TRAIN, "batch_size": 10},
    }
    assert run("train", write_recipe("mine.yaml", **sections), "--out", "run").code == 0
    shutil.copytree("photos", "copy")
    first = run("evaluate", "run")
    assert run("evaluate", "run", "--data.root", "copy").out == first.out
    for name in ("train", "val", "test"):
        Path(f"copy/{name}/class0").rename(f"copy/{name}/zebra")
    says = (
        "the data has the classes ['class1', 'class2', 'zebra']",
        "the run learned ['class0', 'class1', 'class2']",
    )
    refuse("evaluate", "run", "--data.root", "copy", says=says)

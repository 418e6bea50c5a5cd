from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.runs import make_net, make_recipe
from tutelage import KD, RCKA, Baseline, CombinedMethod, FitNet, NonFiniteError, Step, UserError
from tutelage.engine import fit
from tutelage.engine.run_folder import RunFolder


def test_a_run_folder_explains_itself(teacher_run: Path, tmp_path: Path) -> None:
    method = CombinedMethod([KD(), RCKA({"3": "3"}), FitNet({"0": "0"})])
    metrics = fit(make_recipe(method, teacher_run), tmp_path / "run", text="seed: 0\n")
    assert metrics is not None
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [
        "environment.json",
        "log.jsonl",
        "loss_scale.json",
        "metrics.json",
        "recipe.yaml",
        "student.json",
        "student.safetensors",
    ]
    assert json.loads((tmp_path / "run/metrics.json").read_text()) == metrics
    assert {"top1", "top5", "nll", "ece", "agreement", "teacher_kl", "num_samples"} <= set(
        metrics["test"]
    )
    records = RunFolder(tmp_path / "run").records()
    assert [record["epoch"] for record in records] == [1, 2]
    assert {"task", "kd", "rcka/intra", "rcka/inter", "rcka/3"} < set(records[0]["terms"])
    assert metrics["parameters"]["method"] > 0
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert environment["packages"]["torch"].startswith(torch.__version__.split("+")[0])


def test_the_shipped_student_is_the_student_alone(teacher_run: Path, tmp_path: Path) -> None:
    metrics = fit(make_recipe(FitNet({"0": "0"}), teacher_run), tmp_path / "run")
    assert metrics is not None
    state = load_file(tmp_path / "run/student.safetensors")
    student = make_net(4)
    assert list(state) == list(student.state_dict()) or set(state) == set(student.state_dict())
    student.load_state_dict(state)
    stated = json.loads((tmp_path / "run/student.json").read_text())
    recipe = make_recipe(Baseline(), None)
    test = recipe.data.splits(200, 0)["test"]
    batch = test.batch([(0, position) for position in range(len(test))])
    mean, std = (torch.tensor(stated[k]).view(-1, 1, 1) for k in ("mean", "std"))
    right = (student.eval()((batch.inputs - mean) / std).argmax(1) == batch.labels).float().mean()
    assert float(right) == pytest.approx(metrics["test"]["top1"], abs=1e-6)


def test_the_same_recipe_gives_the_same_student(teacher_run: Path, tmp_path: Path) -> None:
    for name in "ab":
        fit(make_recipe(KD(), teacher_run), tmp_path / name)
    first, second = (load_file(tmp_path / name / "student.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_settings_of_training_run(teacher_run: Path, tmp_path: Path) -> None:
    recipe = make_recipe(
        KD(),
        teacher_run,
        ema_decay=0.9,
        max_grad_norm=1.0,
        warmup_epochs=1.0,
        schedule="step",
        milestones=[1],
        checkpoint="last",
    )
    recipe.task.label_smoothing = 0.1
    metrics = fit(recipe, tmp_path / "run")
    assert metrics is not None
    assert metrics["checkpoint"] == "last"
    assert metrics["test"] == metrics["last"]["test"]
    assert RunFolder(tmp_path / "run").records()[1]["lr"] == pytest.approx(3e-4)


class Poison(KD):
    """A distillation term that is NaN from the middle of the run on."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        terms = super().forward(step)
        return {"kd": terms["kd"] * (float("nan") if 0.5 < step.progress < 1 else 1.0)}


def test_nan_stops_the_run_with_the_name_of_the_term(teacher_run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match="the term 'kd' became nan in epoch 2 at step 6"
    ) as caught:
        fit(make_recipe(Poison(), teacher_run), tmp_path / "run")
    assert caught.value.term == "kd"
    assert not (tmp_path / "run/metrics.json").exists()
    assert not (tmp_path / "run/student.safetensors").exists()


def test_a_folder_is_never_reused_for_something_else(teacher_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    metrics = fit(make_recipe(Baseline(), None), out, text="a: 1\n")
    with pytest.raises(UserError, match="holds a finished run; choose another --out"):
        fit(make_recipe(Baseline(), None), out, text="a: 1\n")
    assert fit(make_recipe(Baseline(), None), out, resume=True, text="a: 1\n") == metrics
    (out / "metrics.json").unlink()
    with pytest.raises(UserError, match="holds an unfinished run; add --resume"):
        fit(make_recipe(Baseline(), None), out, text="a: 1\n")
    with pytest.raises(UserError, match="was run with 'a: 1', now it is 'a: 2'"):
        fit(make_recipe(Baseline(), None), out, resume=True, text="a: 2\n")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is no run of ours"):
        fit(make_recipe(Baseline(), None), foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]


def test_an_untrained_teacher_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = make_recipe(KD(), None)
    from tutelage.engine import TeacherConfig

    recipe.teacher = TeacherConfig(make_net(16))
    with pytest.raises(UserError, match="which is chance level"):
        fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_alone_is_compared_with_the_teacher_but_never_hears_it(
    teacher_run: Path, tmp_path: Path
) -> None:
    without = fit(make_recipe(Baseline(), None), tmp_path / "without")
    recipe = make_recipe(Baseline(), teacher_run)
    beside = fit(recipe, tmp_path / "beside")
    assert without is not None
    assert beside is not None
    assert set(beside["test"]) - set(without["test"]) == {"agreement", "teacher_kl"}
    # The teacher on the same items as the student: the one of this run was tested on them.
    own = json.loads((teacher_run / "metrics.json").read_text())["test"]
    assert beside["teacher"]["test"] == pytest.approx(own, rel=1e-6)
    assert without["teacher"] is None
    states = [load_file(tmp_path / name / "student.safetensors") for name in ("without", "beside")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_tensorboard_is_a_tracker_and_off_by_default(teacher_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for name, trackers in (("off", ()), ("on", ("tensorboard",))):
        fit(make_recipe(Baseline(), None, log_with=trackers), tmp_path / name)
        assert bool(list((tmp_path / name).rglob("events.out.tfevents*"))) == (name == "on")


def test_maps_show_how_the_layers_moved(teacher_run: Path, tmp_path: Path) -> None:
    fit(make_recipe(KD(), teacher_run, epochs=3, cka_every=2), tmp_path / "run")
    records = RunFolder(tmp_path / "run").records("layer_maps.jsonl")
    assert [record["epoch"] for record in records] == [0, 2, 3]
    assert len(records[0]["value"]) == len(records[0]["rows"]) == 8
    assert records[0]["value"][7] != records[2]["value"][7]
    without = fit(make_recipe(KD(), teacher_run, epochs=3), tmp_path / "without")
    states = [load_file(tmp_path / name / "student.safetensors") for name in ("run", "without")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert without is not None
    with pytest.raises(UserError, match="give the recipe a teacher"):
        fit(make_recipe(Baseline(), None, cka_every=1), tmp_path / "none")

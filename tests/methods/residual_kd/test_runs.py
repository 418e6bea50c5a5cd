"""Runs of residual distillation in the engine and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tests.helpers.runs import make_recipe
from tests.methods.residual_kd.support import LAST, stagewise
from tutelage import Baseline, ResidualKD, UserError
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, fit
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.weights import load_weights
from tutelage.models import small_cnn

CLEAN = """
import sys, torch
from safetensors.torch import load_file, save_file
from tutelage import NoTeacher, ResidualKD
from tutelage.core.normalization import normalize_inputs
from tutelage.engine.weights import load_weights
from tutelage.models import small_cnn
torch.set_num_threads(1)
method = ResidualKD({"stage3": "stage3"})
network = method.deploy(method.build_student(small_cnn(width=6), NoTeacher()))
load_weights(network, sys.argv[1])
normalize_inputs(network, [float(sys.argv[2])], [float(sys.argv[3])]).eval()
save_file({"logits": network(load_file(sys.argv[4])["images"])}, sys.argv[5])
"""


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small-teacher") / "run"
    recipe = make_recipe(Baseline(), None, epochs=3)
    recipe.student = StudentConfig(small_cnn(width=12))
    recipe.num_labels = None
    assert fit(recipe, out)["test"]["top1"] > 0.8
    return out


def residual_recipe(teacher: Path, method: ResidualKD, **train: Any) -> Recipe:
    recipe = make_recipe(method, None, **train)
    recipe.student = StudentConfig(small_cnn(width=6))
    recipe.teacher = TeacherConfig(small_cnn(width=12), weights=str(teacher))
    return recipe


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.8, "checkpoint": "last"}])
def test_a_run_deploys_one_network_that_loads_in_a_clean_process(
    small_teacher: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    recipe = residual_recipe(small_teacher, ResidualKD(LAST), **settings)
    metrics = fit(recipe, tmp_path / "run")
    given = sum(p.numel() for p in small_cnn(width=6).parameters())
    assert metrics["parameters"]["student"] <= given
    assert metrics["parameters"]["method"] == 0
    assert set(RunFolder(tmp_path / "run").records()[-1]["terms"]) == {
        "task",
        "residual_kd/student/stage3",
        "residual_kd/assistant/stage3",
        "residual_kd/student_task",
    }
    facts = json.loads((tmp_path / "run/student.json").read_text())
    assert "ResidualNetwork" in facts.values()
    test = recipe.data.splits(200, 0)["test"]
    batch = test.batch([(0, position) for position in range(len(test))])
    save_file({"images": batch.inputs}, tmp_path / "images.safetensors")
    command = [
        sys.executable,
        "-c",
        CLEAN,
        str(tmp_path / "run"),
        str(facts["mean"][0]),
        str(facts["std"][0]),
        str(tmp_path / "images.safetensors"),
        str(tmp_path / "logits.safetensors"),
    ]
    subprocess.run(command, check=True)
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    nll = F.cross_entropy(logits, batch.labels).item()
    top1 = (logits.argmax(1) == batch.labels).float().mean().item()
    assert nll == pytest.approx(metrics["test"]["nll"], abs=1e-5)
    assert top1 == pytest.approx(metrics["test"]["top1"], abs=1e-6)
    with pytest.raises(UserError, match="does not fit SmallCNN"):
        load_weights(small_cnn(width=6), tmp_path / "run")


class Stop(Exception):
    """What ends a run after an epoch."""


def test_stage_by_stage_runs_in_the_engine_and_resumes_bit_for_bit(
    small_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe() -> Recipe:
        return residual_recipe(small_teacher, stagewise(), epochs=4)

    whole = fit(recipe(), tmp_path / "whole")
    assert whole["test"]["nll"] < 3.0
    log = RunFolder.log

    def log_and_stop(self: RunFolder, record: dict[str, Any], *rest: Any) -> None:
        log(self, record, *rest)
        if record["epoch"] == 4:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", log_and_stop)
        with pytest.raises(Stop):
            fit(recipe(), tmp_path / "parts")
    fit(recipe(), tmp_path / "parts", resume=True)
    first = load_file(tmp_path / "whole/student.safetensors")
    second = load_file(tmp_path / "parts/student.safetensors")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_command_line_evaluates_it_as_the_run_did(
    small_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tutelage.cli import main

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
data: {{class_path: tutelage.data.Digits}}
num_labels: 200
task: {{class_path: tutelage.tasks.Classification, init_args: {{num_classes: 10}}}}
teacher:
  model: {{class_path: tutelage.models.small_cnn, init_args: {{width: 12}}}}
  weights: {small_teacher}
student: {{model: {{class_path: tutelage.models.small_cnn, init_args: {{width: 6}}}}}}
method:
  class_path: tutelage.methods.ResidualKD
  init_args: {{layer_pairs: {{stage3: stage3}}, share: 0.3, input_shape: [1, 8, 8]}}
train: {{epochs: 2, batch_size: 50, num_threads: 1}}
"""
    )
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert figures == pytest.approx(metrics["test"], abs=1e-6)
    assert main(["plan", str(recipe)]) == 0
    assert "residual_kd/assistant/stage3" in capsys.readouterr().out

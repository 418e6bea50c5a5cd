"""A detector goes through the same engine as a classifier: trained, resumed, shipped."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.coco import write_coco
from tutelage import PCKA, Step
from tutelage.data import Coco
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, TrainConfig, fit
from tutelage.models import fcos, fpn_backbone
from tutelage.tasks import Detection

LEVELS = {f"backbone[{level}]": f"backbone[{level}]" for level in range(3)}


class Stopping(PCKA):
    """PCKA that is interrupted in one of its steps, as by Ctrl-C."""

    stop = -1

    def forward(self, step: Step) -> Any:
        self.stop -= 1
        if self.stop == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(step)


def detector(name: str, sides: list[int]) -> nn.Module:
    return fcos(fpn_backbone(name, 32, extra=None), 3, sides, convs=1, strides=[8, 16, 32])


def recipe(root: Path, stop: int = -1) -> Recipe:
    torch.manual_seed(0)
    method = Stopping(LEVELS, patch_size="auto")
    method.stop = stop
    return Recipe(
        data=Coco(str(root), train="train2017", val="val2017"),
        task=Detection(3, names=["person", "toothbrush"]),
        student=StudentConfig(detector("mobilenetv3_small_050", [64, 96, 128])),
        method=method,
        teacher=TeacherConfig(detector("resnet18", [128]), preflight=False),
        train=TrainConfig(
            epochs=4,
            batch_size=2,
            optimizer=partial(torch.optim.AdamW, lr=2e-3),
            num_threads=1,
            eval_batch_size=8,
        ),
    )


def test_an_interrupted_run_of_a_detector_ends_with_the_same_bits(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    whole = fit(recipe(root), tmp_path / "whole")
    assert (
        fit(recipe(root, stop=4), tmp_path / "parts") is None
    )  # setup and the look at the terms come first
    assert not (tmp_path / "parts" / "student.safetensors").exists()
    parts = fit(recipe(root), tmp_path / "parts", resume=True)
    assert whole is not None
    assert parts is not None
    assert whole["test"] == parts["test"]
    assert {"ap", "ap50", "teacher_ap", "ap/person", "num_samples"} <= set(whole["test"])
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_detector_without_a_precision_cannot_teach(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    asked = recipe(root)
    assert asked.teacher is not None
    asked.teacher.preflight = True
    with pytest.raises(ValueError, match=r"the teacher scores ap 0.0.* which is chance level"):
        fit(asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()

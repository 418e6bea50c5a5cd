from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.coco import write_coco
from tutelage import PCKA, SSIM, CombinedMethod, Distiller, FitNet, FrozenTeacher, UserError
from tutelage.core import Evaluation
from tutelage.data import Coco
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, TrainConfig, fit
from tutelage.engine.checks.teacher import state_hash
from tutelage.engine.evaluate import evaluate
from tutelage.tasks import TransformerDetection

transformers = pytest.importorskip("transformers")
LEVELS = [f"model.encoder[last_hidden_state][{level}]" for level in range(3)]
PAIRS = dict(zip(LEVELS, LEVELS, strict=True))
SMALL: dict[str, Any] = {
    "num_labels": 2,
    "decoder_layers": 1,
    "num_queries": 20,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_n_points": 2,
    "num_denoising": 4,
}


def rt_detr(width: int = 32, depth: int = 1) -> nn.Module:
    torch.manual_seed(width + depth)
    body = transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[depth] * 4,
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    widths = {"encoder_hidden_dim": width, "d_model": width, "decoder_in_channels": [width] * 3}
    config = transformers.RTDetrConfig(
        backbone_config=body, encoder_in_channels=[32, 48, 64], **widths, **SMALL
    )
    return transformers.RTDetrForObjectDetection(config)


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    train, _, _ = Coco(str(write_coco(tmp_path)), augment=False).raw_splits()
    return train.batch([(0, 0), (0, 1)])


def test_rt_detr_learns_from_a_wider_and_deeper_one_through_its_encoder(batch: Any) -> None:
    student, teacher = rt_detr(), rt_detr(width=64, depth=2)
    before = state_hash(teacher)
    method = CombinedMethod(
        [PCKA(PAIRS, patch_size="auto"), FitNet(PAIRS), SSIM(PAIRS, ignore_dead=True)]
    )
    distiller = Distiller(
        student, FrozenTeacher(teacher), method, TransformerDetection(2, size=128)
    )
    with pytest.warns(UserWarning, match="reflected border"):
        distiller.setup(batch)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        terms = distiller(batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        losses.append(sum(value.item() for value in terms.values()))
    assert len(terms) == 10
    assert losses[-1] < losses[0]
    assert state_hash(teacher) == before
    run = Evaluation("test", lambda part: part, FrozenTeacher(teacher))
    figures = evaluate(student, distiller.task, {"test": [batch]}, run)
    assert set(figures) >= {"ap", "teacher_ap", "num_samples"}


def test_the_teacher_computes_no_loss_in_training(batch: Any) -> None:
    teacher = rt_detr(width=64)
    task = TransformerDetection(2, size=64)
    distiller = Distiller(rt_detr(), FrozenTeacher(teacher), FitNet({LEVELS[0]: LEVELS[0]}), task)
    step = distiller.step(batch)
    assert step.student.output["loss"].requires_grad
    assert step.teacher.output.get("loss") is None
    assert distiller.teacher(batch, task.inputs(batch)).output["loss"] > 0  # in evaluation
    assert list(distiller.teacher.models().values()) == [teacher]
    assert distiller.teacher.module("model.encoder") is teacher.model.encoder


def test_boxes_are_relative_for_the_model_and_in_pixels_for_people(batch: Any) -> None:
    task = TransformerDetection(2, size=64)
    inputs = task.inputs(batch)[0]
    assert inputs["pixel_values"].shape == (2, 3, 64, 64)
    assert inputs["labels"][0]["class_labels"].tolist() == [0, 1]
    assert inputs["labels"][0]["boxes"][0].tolist() == pytest.approx(
        [25 / 96, 32 / 72, 30 / 96, 24 / 72]
    )
    assert len(inputs["labels"][1]["boxes"]) == 1  # without the crowd
    out = {
        "logits": torch.full((2, 3, 2), -9.0),
        "pred_boxes": torch.zeros(2, 3, 4),
        "loss": torch.tensor(0.0),
    }
    out["logits"][0, 2, 1] = 4.0
    out["pred_boxes"][0, 2] = inputs["labels"][0]["boxes"][1]
    found = task.detections(out, batch)
    assert found[0]["boxes"][0].tolist() == pytest.approx([0, 0, 60, 40], abs=1e-4)
    assert found[0]["labels"][0] == 2
    assert found[0]["scores"][0] == pytest.approx(1 / (1 + torch.e**-4), abs=1e-4)
    softmax = TransformerDetection(1, size=64, focal=False).detections(out, batch)
    assert softmax[0]["labels"].unique().tolist() == [1]


def test_another_number_of_classes_or_another_network_is_refused(batch: Any) -> None:
    network = rt_detr().eval()
    task = TransformerDetection(3, size=64)
    out = network(**task.inputs(batch)[0])
    with pytest.raises(
        UserError, match="the network has 2 classes, the task 3, and labels run to 2"
    ):
        task.validate(out, batch)
    with pytest.raises(UserError, match="gives a Tensor without 'loss'"):
        task.validate(torch.zeros(1), batch)
    data = SimpleNamespace(classes=["background", "person", "toothbrush", "leaf"])
    with pytest.raises(UserError, match=r"the network has 2 classes, the task 3"):
        task.validate(out, batch, data)  # the background counts
    with pytest.raises(UserError, match=r"the data has 4 classes, but task\.num_classes is 3"):
        TransformerDetection(2, size=64).validate(out, batch, data)
    with pytest.raises(UserError, match="at least 32, got 2 and 16"):
        TransformerDetection(2, size=16)


def test_it_goes_through_the_engine(tmp_path: Path) -> None:
    teacher = TeacherConfig(rt_detr(width=64), preflight=False)
    train = TrainConfig(
        epochs=1,
        batch_size=2,
        eval_batch_size=8,
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
        num_threads=1,
    )
    recipe = Recipe(
        data=Coco(str(write_coco(tmp_path / "coco")), val="val2017"),
        task=TransformerDetection(2, size=96),
        student=StudentConfig(rt_detr()),
        method=PCKA({LEVELS[0]: LEVELS[0]}, patch_size="auto"),
        teacher=teacher,
        train=train,
    )
    figures = fit(recipe, tmp_path / "run")
    assert figures is not None
    assert {"ap", "teacher_ap"} <= set(figures["test"])
    pictures = json.loads((tmp_path / "run" / "pictures" / "pictures.json").read_text())
    assert len(pictures["images"]) == 2

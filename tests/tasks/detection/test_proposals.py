"""A Faster R-CNN teaches the classes of the proposals on which its student trains."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import nn

from tutelage import CKD, KD, CombinedMethod, Distiller, FitNet, FrozenTeacher, UserError
from tutelage.core import Batch
from tutelage.models import faster_rcnn, fcos, fpn_backbone
from tutelage.tasks import Detection
from tutelage.tasks.detection.proposals import ProposalTeacher

HEAD = "roi_heads.box_predictor[0]"


def detector(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    backbone = fpn_backbone("resnet18", width=32, extra=None)
    return faster_rcnn(backbone, num_classes=4, sides=[64], strides=[8, 16, 32])


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, height, 64, generator=generator) for height in (64, 80)]
    targets = [
        {
            "boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0], [4.0, 30.0, 30.0, 60.0]]),
            "labels": torch.tensor([1, 3]),
            "area": torch.tensor([1280.0, 780.0]),
            "iscrowd": torch.zeros(2, dtype=torch.int64),
            "image_id": torch.tensor(number),
        }
        for number in range(2)
    ]
    return Batch({"inputs": images, "labels": targets})


def test_both_networks_classify_the_same_boxes(batch: Batch) -> None:
    student = detector(0)
    teacher = FrozenTeacher(copy.deepcopy(student))
    method = CombinedMethod(
        [KD(temperature=1.0, logits_layer=HEAD), CKD(weight=0.1, logits_layer=HEAD)]
    )
    distiller = Distiller(student, teacher, method, Detection(num_classes=4))
    student.eval()  # so that batch norm does what it does in the teacher
    for part in (student, student.rpn, student.roi_heads):
        part.training = True
    step = distiller.step(batch)
    logits = step.student.feature(HEAD)
    assert logits.shape[1] == 4
    assert len(logits) > 8
    assert torch.allclose(step.teacher.feature(HEAD), logits, atol=1e-5)
    assert distiller(batch)["kd"].item() == pytest.approx(0.0, abs=1e-5)


def test_the_terms_reach_the_student_and_the_hook_goes(batch: Batch) -> None:
    student = detector(0)
    method = CKD(weight=0.1, logits_layer=HEAD)
    distiller = Distiller(student, FrozenTeacher(detector(1)), method, Detection(num_classes=4))
    student.train()
    distiller.setup(batch)
    assert isinstance(distiller.teacher, ProposalTeacher)
    terms = distiller(batch)
    gradient = torch.autograd.grad(terms["ckd"], student.roi_heads.box_predictor.cls_score.weight)
    assert gradient[0].abs().sum() > 0
    shipped = distiller.deploy()
    del distiller
    gc.collect()
    assert not shipped.roi_heads.box_roi_pool._forward_pre_hooks


def test_features_and_proposals_together(batch: Batch) -> None:
    pair = FitNet({"backbone[0]": "backbone[0]"})
    method = CombinedMethod([KD(logits_layer=HEAD), pair])
    task = Detection(num_classes=4)
    distiller = Distiller(detector(0).train(), FrozenTeacher(detector(1)), method, task)
    distiller.setup(batch)
    assert sorted(distiller(batch)) == ["fitnet/backbone[0]", "kd", "task"]


def test_what_cannot_work_is_said(batch: Batch) -> None:
    backbone = fpn_backbone("resnet18", width=32, extra=None)
    single_stage = fcos(backbone, num_classes=4, sides=[64], convs=1, strides=[8, 16, 32])
    method, task = KD(logits_layer=HEAD), Detection(num_classes=4)
    with pytest.raises(UserError, match="roi_heads"):
        Distiller(single_stage, FrozenTeacher(detector(1)), method, task)
    with pytest.raises(UserError, match="name of a layer, got 3"):
        KD(logits_layer=3)  # type: ignore[arg-type]
    distiller = Distiller(detector(0).train(), FrozenTeacher(detector(1)), method, task)
    distiller.student = detector(2).train()
    with pytest.raises(UserError, match="needs a new Distiller"):
        distiller(batch)

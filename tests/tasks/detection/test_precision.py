"""Anchors and boxes stay in float32 while a detector runs in bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import Baseline, Distiller, FitNet, FrozenTeacher, NoTeacher
from tutelage.core import Batch
from tutelage.models import faster_rcnn, fcos, fpn_backbone, retinanet
from tutelage.tasks import Detection
from tutelage.tasks.detection.precision import keep_boxes_in_float32

BUILDERS = [faster_rcnn, fcos, retinanet]


def detector(build: Callable[..., nn.Module], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    backbone = fpn_backbone("resnet18", width=32, extra=None)
    return build(backbone, num_classes=3, sides=[320], strides=[8, 16, 32])


@pytest.fixture
def batch() -> Batch:
    images = [torch.rand(3, 320, 320, generator=torch.Generator().manual_seed(0))]
    targets = [
        {
            "boxes": torch.tensor([[301.3, 250.7, 302.1, 251.4], [10.0, 10.0, 90.0, 70.0]]),
            "labels": torch.tensor([1, 2]),
            "area": torch.tensor([0.56, 4800.0]),
            "iscrowd": torch.zeros(2, dtype=torch.int64),
            "image_id": torch.tensor(0),
        }
    ]
    return Batch({"inputs": images, "labels": targets})


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("build", BUILDERS)
def test_anchors_and_boxes_are_float32_and_layers_run_in_bfloat16(
    build: Callable[..., nn.Module], batch: Batch
) -> None:
    network = detector(build)
    distiller = Distiller(network, NoTeacher(), Baseline(), Detection(num_classes=3))
    distiller.setup(batch)
    anchors: list[Tensor] = []
    convolutions: list[torch.dtype] = []
    generator = network.rpn.anchor_generator if build is faster_rcnn else network.anchor_generator
    generator.register_forward_hook(lambda module, inputs, output: anchors.extend(output))
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: convolutions.append(output.dtype))

    with bfloat16():
        terms = distiller(batch)
        (found,) = network.eval()(batch.inputs)

    assert torch.isfinite(terms["task"])
    assert {boxes.dtype for boxes in anchors} == {torch.float32}
    assert found["boxes"].dtype == torch.float32
    assert convolutions == [torch.bfloat16] * 2


def test_an_object_smaller_than_the_steps_of_bfloat16_has_a_finite_loss(batch: Batch) -> None:
    """Its corners at 301.3 and 302.1 are the same number in bfloat16: a box of no width."""
    network = detector(faster_rcnn)
    plain = copy.deepcopy(network)
    keep_boxes_in_float32(network)
    targets = [dict(batch.labels[0])]
    with bfloat16():
        losses = network(batch.inputs, targets)
        without = plain(batch.inputs, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert not all(torch.isfinite(loss) for loss in without.values())


def test_a_teacher_is_prepared_too_and_preparing_twice_changes_nothing(batch: Batch) -> None:
    network, teacher = detector(fcos), detector(fcos, seed=1)
    method = FitNet({"backbone[0]": "backbone[0]"})
    task = Detection(num_classes=3)
    Distiller(network, FrozenTeacher(teacher), method, task)
    Distiller(network, FrozenTeacher(teacher), method, task)
    for model in (network, teacher):
        hooks = list(model.head._forward_hooks.values())
        assert [hook.__name__ for hook in hooks] == ["_promote"]


def test_another_student_is_prepared_when_it_is_set(batch: Batch) -> None:
    distiller = Distiller(detector(fcos), NoTeacher(), Baseline(), Detection(num_classes=3))
    other = detector(fcos, seed=1)
    distiller.student = other
    assert other.head._forward_hooks


def test_outside_autocast_nothing_changes(batch: Batch) -> None:
    network = detector(retinanet).double().eval()
    images = [image.double() for image in batch.inputs]
    (before,) = network(images)
    keep_boxes_in_float32(network)
    (after,) = network(images)
    assert after["boxes"].dtype == torch.float64
    assert torch.equal(after["boxes"], before["boxes"])

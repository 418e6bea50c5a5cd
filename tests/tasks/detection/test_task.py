from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.image_list import ImageList

from tests.helpers.coco import write_coco
from tutelage import (
    PCKA,
    SSIM,
    Baseline,
    CombinedMethod,
    Distiller,
    FitNet,
    FrozenTeacher,
    Method,
    UserError,
)
from tutelage.core import Evaluation, Teachers
from tutelage.data import Coco
from tutelage.engine.checks.teacher import state_hash
from tutelage.engine.evaluate import evaluate
from tutelage.models import faster_rcnn, fcos, fpn_backbone, retinanet
from tutelage.tasks import Detection

STRIDES = [8, 16, 32]
PAIRS = {f"backbone[{level}]": f"backbone[{level}]" for level in range(3)}


def detector(
    kind: str = "fcos", body: str = "resnet18", width: int = 32, sides: Any = (64,)
) -> nn.Module:
    torch.manual_seed(len(body) + width)
    if kind == "fcos":
        return fcos(fpn_backbone(body, width, extra=None), 3, sides, convs=1, strides=STRIDES)
    make = {"retinanet": retinanet, "faster_rcnn": faster_rcnn}[kind]
    return make(fpn_backbone(body, width, extra=None), 3, sides, strides=STRIDES)


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    train, _, _ = Coco(str(write_coco(tmp_path)), augment=False).raw_splits()
    return train.batch([(0, 0), (0, 1)])


def distill(method: Method, student: nn.Module, teacher: nn.Module, batch: Any) -> Distiller:
    distiller = Distiller(student, FrozenTeacher(teacher), method, Detection(3))
    distiller.setup(batch)
    return distiller


@pytest.mark.parametrize("kind", ["fcos", "retinanet", "faster_rcnn"])
@pytest.mark.parametrize("body", ["resnet18", "mobilenetv3_small_050"])
def test_every_detector_of_torchvision_learns_from_a_wider_and_deeper_one(
    kind: str, body: str, batch: Any
) -> None:
    method = CombinedMethod(
        [
            PCKA(PAIRS, patch_size="auto", inter_weight=10.0),
            FitNet(PAIRS),
            SSIM(PAIRS, ignore_dead=True),
        ]
    )
    student, teacher = detector(kind, body), detector(kind, "resnet34", width=64)
    before = state_hash(teacher)
    with pytest.warns(UserWarning, match="too small for a reflected border"):
        distiller = distill(method, student, teacher, batch)
    terms = distiller(batch)
    assert next(iter(terms)) == "task"
    assert len(terms) == 1 + 6 + 3 + 3
    sum(terms.values()).backward()
    for module in (student.backbone, method):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    assert state_hash(teacher) == before
    assert all(p.grad is None for p in teacher.parameters())
    assert distiller.deploy() is student
    assert not any(key.startswith("method") for key in student.state_dict())


def test_the_teacher_sees_the_sizes_that_the_student_draws(batch: Any) -> None:
    student, teacher = detector(sides=[64, 96, 128]), detector(body="resnet34", sides=[320])
    distiller = distill(FitNet(PAIRS), student, teacher, batch)
    head = []
    teacher.head.register_forward_hook(lambda *_: head.append(1))
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        step = distiller.step(batch)
        for name in PAIRS:
            assert step.student.feature(name).shape == step.teacher.feature(name).shape
        seen.add(tuple(step.student.feature("transform[0][tensors]").shape[2:]))
    assert len(seen) > 2
    assert not head  # only its backbone runs
    with torch.no_grad():
        found = distiller.teacher(batch, distiller.task.inputs(batch)).output
    assert head  # in evaluation all of it runs
    assert [set(image) for image in found] == [{"boxes", "labels", "scores"}] * 2


def test_several_teachers_all_see_the_images_of_the_student(batch: Any) -> None:
    teachers = Teachers(
        {
            "small": FrozenTeacher(detector(sides=[320])),
            "large": FrozenTeacher(detector(body="resnet34", sides=[256])),
        }
    )
    method = FitNet({"backbone[0]": "large/backbone[0]", "backbone[1]": "small/backbone[1]"})
    distiller = Distiller(detector(sides=[64, 96]), teachers, method, Detection(3))
    distiller.setup(batch)
    step = distiller.step(batch)
    for student_layer, teacher_layer in method.layer_pairs.items():
        maps = step.student.feature(student_layer), step.teacher.feature(teacher_layer)
        assert maps[0].shape == maps[1].shape
    assert list(distiller.teacher.models()) == ["small", "large"]


def test_a_teacher_with_its_own_transform_says_how_to_mend_it(batch: Any) -> None:
    student, teacher = detector(sides=[64]), detector(sides=[128])
    task = Detection(3, transform=None)
    distiller = Distiller(student, FrozenTeacher(teacher), PCKA(PAIRS, patch_size=4), task)
    with pytest.raises(
        UserError, match=r"the student's map is .* feed the teacher the student's transformed batch"
    ):
        distiller.setup(batch)


def test_images_must_be_prepared_alike() -> None:
    student, teacher = detector(), detector()
    teacher.transform.image_mean = [0.5, 0.5, 0.5]
    with pytest.raises(
        UserError, match=r"transform.image_mean is .* the teacher's \[0.5, 0.5, 0.5\].*the same"
    ):
        Distiller(student, FrozenTeacher(teacher), FitNet(PAIRS), Detection(3))
    with pytest.raises(UserError, match="no module 'transfrom' in FCOS"):
        Distiller(
            student, FrozenTeacher(detector()), FitNet(PAIRS), Detection(3, transform="transfrom")
        )
    with pytest.raises(UserError, match="'head' of the teacher lies outside of its 'backbone'"):
        Distiller(student, FrozenTeacher(detector()), FitNet({"backbone[0]": "head"}), Detection(3))
    Distiller(student, FrozenTeacher(teacher), Baseline(), Detection(3))  # does not use it


def test_levels_are_paired_by_name_where_two_have_the_same_size(batch: Any) -> None:
    torch.manual_seed(0)
    networks = [
        fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64
        )
        for _ in range(2)
    ]
    distiller = distill(
        FitNet({"backbone[0]": "backbone[0]", "backbone[1]": "backbone[1]"}), *networks, batch
    )
    step = distiller.step(batch)
    assert step.student.feature("backbone[0]").shape == step.student.feature("backbone[1]").shape
    assert not torch.equal(step.teacher.feature("backbone[0]"), step.teacher.feature("backbone[1]"))


def test_crowds_are_not_learned_from_but_evaluation_knows_them(batch: Any) -> None:
    task = Detection(3)
    _, targets = task.inputs(batch)
    assert [len(target["boxes"]) for target in targets] == [2, 1]
    assert [len(target["boxes"]) for target in batch.labels] == [2, 2]


def test_losses_and_detections_are_told_apart(batch: Any) -> None:
    task, network = Detection(3), detector()
    found = network.eval()(*task.inputs(batch))
    task.validate(found, batch)
    with pytest.raises(UserError, match="put it into train mode"):
        task.loss(found, batch)
    with pytest.raises(UserError, match="gives a dict in eval mode"):
        task.validate({"loss": torch.tensor(1.0)}, batch)
    targets = [{**target, "labels": target["labels"] + 2} for target in batch.labels]
    wrong = batch.with_fields({"labels": targets})
    with pytest.raises(UserError, match=r"labels run from 3 to 4, but the task has 3 classes"):
        task.validate(found, wrong)
    data = SimpleNamespace(classes=["background", "person", "toothbrush", "leaf"])
    with pytest.raises(UserError, match=r"the data has 4 classes, but task\.num_classes is 3"):
        task.validate({"loss": torch.tensor(1.0)}, batch, data)  # said first
    with pytest.raises(UserError, match="at least 2, got 1"):
        Detection(1)
    losses = network.train()(*task.inputs(batch))
    assert task.loss(losses, batch).item() == pytest.approx(
        sum(value.item() for value in losses.values())
    )


def test_a_step_lowers_the_loss_and_a_network_that_knows_scores(batch: Any) -> None:
    student = detector(body="mobilenetv3_small_050")
    distiller = distill(PCKA(PAIRS, patch_size="auto"), student, detector(), batch)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        terms = distiller(batch)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        losses.append({name: value.item() for name, value in terms.items()})
    assert losses[-1]["task"] < 0.7 * losses[0]["task"]
    assert losses[-1]["pcka/intra/backbone[1]"] < losses[0]["pcka/intra/backbone[1]"]
    run = Evaluation("test", lambda part: part)
    figures = evaluate(student, distiller.task, {"test": [batch]}, run)
    assert set(figures) >= {"ap", "ap50", "ar@100", "num_samples"}


class Own(nn.Module):
    """A detector as a user writes it: no torchvision, no transform of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.Conv2d(3, 4, 3, stride=8)

    def forward(self, images: Any, targets: Any = None) -> Any:
        maps = [self.neck(image[None]) for image in images]
        if self.training:
            return {"loss": torch.stack([m.square().mean() for m in maps]).sum()}
        box = {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "scores": torch.zeros(0),
        }
        return [copy.copy(box) for _ in images]


def test_any_module_that_is_called_like_a_detector_will_do(batch: Any) -> None:
    student, teacher = Own(), Own()
    images = [batch.inputs[0], batch.inputs[0]]
    same = batch.with_fields({"inputs": images, "labels": [batch.labels[0], batch.labels[0]]})
    distiller = Distiller(
        student, FrozenTeacher(teacher), FitNet({"neck:0": "neck:0"}), Detection(3, transform=None)
    )
    distiller.setup(same)
    terms = distiller(same)
    assert [*terms] == ["task", "fitnet/neck:0"]


def test_the_image_list_is_read_by_its_name() -> None:
    from tutelage.core.taps import Address

    images = ImageList(torch.ones(1, 3, 8, 8), [(8, 8)])
    assert Address.parse("transform[0][tensors]").pick((images, None)).shape == (1, 3, 8, 8)
    with pytest.raises(UserError, match=r"choose one of .*transform\[0\]\[tensors\]"):
        Address.parse("transform[0]").pick((images, None))

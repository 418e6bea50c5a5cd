"""The teacher's classifier: found in networks of several libraries, checked, and left as it was."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import timm.models
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from tests.methods.harness import (
    distill,
    image_batch,
    make_step,
    resnet,
    setup_method,
    swin,
    vit,
)
from tutelage import SRD, Classification, Distiller, FrozenTeacher, NoTeacher, UserError
from tutelage.methods.srd.teacher_head import TeacherHead
from tutelage.models import small_cnn, wrn_16_1


def batch() -> tuple[Tensor, Tensor]:
    images, _ = image_batch(4, size=32, channels=3)
    return images, torch.tensor([0, 1, 2, -100])


def set_up(teacher: nn.Module, method: SRD, student: nn.Module | None = None) -> Distiller:
    """Return a distiller for images of 32 x 32 and 7 classes."""
    student = small_cnn(7, 3, width=4) if student is None else student
    return distill(method, student=student, teacher=teacher, batch=batch(), num_classes=7)


def hugging_face() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12],
        depths=[1, 1],
        layer_type="basic",
        num_labels=7,
        return_dict=True,
    )
    return ResNetForImageClassification(config)


# Name -> network, layer, name of its classifier, and whether its feature is nowhere negative.
HEADS = {
    "own": (lambda: small_cnn(7, 3), "stage3", "classifier", True),
    "own pre-activation": (lambda: wrn_16_1(7), "last", "classifier", True),
    "timm resnet": (resnet, "layer4", "fc", True),
    "timm resnet with dropout": (lambda: resnet(drop_rate=0.5), "global_pool", "fc", True),
    "timm vit": (lambda: vit(depth=2), "head_drop", "head", False),
    "timm swin": (lambda: swin(2), "head.global_pool", "head.fc", False),
    "torchvision resnet": (
        lambda: torchvision.models.resnet18(num_classes=7),
        "layer4",
        "fc",
        True,
    ),
    "torchvision mobilenet": (
        lambda: torchvision.models.mobilenet_v2(num_classes=7),
        "features",
        "classifier",
        True,
    ),
    "hugging face": (hugging_face, "resnet.pooler", "classifier", True),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_teachers_classifier_is_found(name: str) -> None:
    make, layer, expected, positive = HEADS[name]
    distiller = set_up(make(), SRD(teacher_layer=layer))
    method, teacher = distiller.method, distiller.teacher
    assert isinstance(method, SRD)
    assert method._head.classifier.module is teacher.module(expected)
    assert (type(method.connector[-1]) is nn.ReLU) == positive
    sum(distiller(batch()).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(p.grad is None for p in teacher.model.parameters())
    assert set(distiller.state_dict()) == {
        *(f"student.{key}" for key in distiller.student.state_dict()),
        *(f"method.connector.{key}" for key in method.connector.state_dict()),
    }


def test_a_head_that_pools_itself_gets_maps() -> None:
    teacher = timm.models.ConvNeXt(num_classes=7, depths=(1, 1, 1, 1), dims=(4, 6, 8, 12))
    example = (image_batch(4, size=64, channels=3)[0], torch.tensor([0, 1, 2, 3]))
    distiller = distill(
        SRD(teacher_layer="stages"),
        student=small_cnn(7, 3, width=4),
        teacher=teacher,
        batch=example,
        num_classes=7,
    )
    head = distiller.method._head
    assert head.classifier.module is teacher.head
    assert head.takes_maps
    assert not head.takes_one_position
    assert type(distiller.method.connector[-1]) is nn.BatchNorm2d  # it has negative values
    assert all(term.isfinite() for term in distiller(example).values())
    assert TeacherHead(teacher.head, takes_maps=True)(torch.rand(2, 12)).shape == (2, 7)


def test_a_head_of_one_position_gets_maps_of_any_size() -> None:
    """torchvision's ConvNeXt: its head norms, flattens and does not pool; the tap is pooled."""
    head = nn.Sequential(nn.Flatten(1), nn.Linear(12, 7))
    teacher = nn.Sequential(
        OrderedDict(body=nn.Conv2d(3, 12, 1), avgpool=nn.AdaptiveAvgPool2d(1), classifier=head)
    )
    distiller = set_up(teacher, SRD(teacher_layer="avgpool"))
    assert all(term.isfinite() for term in distiller(batch()).values())


def test_maps_of_other_sizes_and_not_square_fit_the_teachers_head() -> None:
    """The official heads pool with a fixed 8×8 window, or with the height as both sides."""
    student, teacher = torch.rand(3, 5, 4, 4), torch.rand(3, 7, 8, 6)
    head = nn.Linear(7, 4)
    step = make_step(
        None,
        head(teacher.mean((2, 3))),
        student_features={"s": student},
        teacher_features={"t": teacher},
    )
    method = SRD(student_layer="s", teacher_layer="t", classifier="fc")
    setup_method(method, step, FrozenTeacher(nn.ModuleDict({"fc": head})))
    features = method.connector.eval()(student)
    expected = F.mse_loss(head(features.mean((2, 3))), step.teacher.logits)
    assert torch.isclose(method(step)["srd"], expected)


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: wrn_16_1(7), "stage3"),  # before the last norm
        (lambda: small_cnn(7, 3), "stage3.1"),  # before the last ReLU
        (lambda: small_cnn(7, 3), "stage2"),
    ],
)
def test_a_tap_before_the_last_activation_is_refused(make: object, layer: str) -> None:
    with pytest.raises(
        UserError,
        match=f"the teacher's layer '{layer}' .* logits \\(relative error.*tap what the",
    ):
        set_up(make(), SRD(teacher_layer=layer))


def test_a_module_that_fails_on_the_feature_is_no_classifier() -> None:
    """Whatever it raises for a shape that it does not take."""

    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.ndim == 3, "tokens"
            return x

    teacher = nn.Sequential(
        OrderedDict(body=nn.Conv2d(3, 7, 32), flatten=nn.Flatten(), classifier=Strict())
    )
    teacher.classifier.forward = lambda x: x  # while the network runs
    method = SRD(teacher_layer="flatten")
    student = small_cnn(7, 3, width=4)
    distiller = Distiller(student, FrozenTeacher(teacher), method, Classification(num_classes=7))
    step = distiller.step(batch())
    del teacher.classifier.forward
    with pytest.raises(UserError, match="relative error: the shapes do not fit"):
        method.setup(step, distiller.teacher)


def test_the_teacher_stays_as_it_was_and_its_dropout_off() -> None:
    teacher = small_cnn(width=6)
    teacher.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(24, 10))
    images, labels = image_batch(8)
    labels[4:] = -100
    example = (images, labels)
    distiller = distill(SRD(), student=small_cnn(width=4), teacher=teacher, batch=example)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    distiller.train()
    teacher.classifier.train()  # by mistake; the network itself stays in eval mode
    first, second = (distiller(example)["srd"].item() for _ in range(2))
    assert first == second
    for _ in range(2):
        sum(distiller(example).values()).backward()
        optimizer.step()
    after = teacher.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert all(p.grad is None for p in teacher.parameters())


def test_layers_and_classifiers_that_do_not_fit_are_named() -> None:
    teacher = vit(depth=2)
    with pytest.raises(
        UserError, match=r"the teacher's layer 'blocks.1' gives \(4, 17, 12\); tap a map"
    ):
        set_up(teacher, SRD(teacher_layer="blocks.1"))
    with pytest.raises(UserError, match="no module 'clasifier' in VisionTransformer"):
        set_up(teacher, SRD(teacher_layer="head_drop", classifier="clasifier"))
    with pytest.raises(UserError, match=r"its classifier .'norm'. do not give its logits"):
        set_up(teacher, SRD(teacher_layer="head_drop", classifier="norm"))
    with pytest.raises(
        UserError, match=r"the student's layer 'layers' gives \(4, 8, 8, 16\); tap a map"
    ):
        set_up(resnet(), SRD(student_layer="layers", teacher_layer="layer4"), student=swin(2))
    with pytest.raises(UserError, match=r"taps .* of a teacher, but there is none"):
        Distiller(small_cnn(), NoTeacher(), SRD(), Classification(num_classes=10))
    teacher = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match="the teacher has none of the classifiers"):
        set_up(teacher, SRD(teacher_layer="2"))

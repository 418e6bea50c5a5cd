from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.models.segmentation import (
    deeplabv3_mobilenet_v3_large,
    fcn_resnet50,
    lraspp_mobilenet_v3_large,
)

from tests.helpers.masks import write_voc_masks
from tutelage import (
    PCKA,
    RCKA,
    SSIM,
    Baseline,
    CombinedMethod,
    Distiller,
    FitNet,
    FrozenTeacher,
    Output,
    UserError,
)
from tutelage.cache import CachedTeacher
from tutelage.core import Batch
from tutelage.data import VOCSegmentation
from tutelage.engine import Recipe, StudentConfig, TeacherConfig, TrainConfig, fit
from tutelage.models import unet
from tutelage.tasks import Segmentation

NAMES = ["background", "brick", "leaf"]


@pytest.fixture
def batch() -> Any:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (2, 48, 64), generator=generator)
    masks[:, :4] = -100
    images = torch.rand(2, 3, 48, 64, generator=generator)
    return Batch.of((images, masks, torch.arange(2)))


def torchvision_network(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "lraspp":
        return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    make = {"deeplab": deeplabv3_mobilenet_v3_large, "fcn": fcn_resnet50}[name]
    return make(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)


@pytest.mark.parametrize("name", ["deeplab", "fcn", "lraspp"])
def test_torchvisions_networks_learn_from_a_teacher_and_are_measured(name: str, batch: Any) -> None:
    student, teacher = torchvision_network(name), torchvision_network("lraspp")
    head = "classifier.high_classifier"
    layer_pairs = {head if name == "lraspp" else "classifier": head}
    rcka = RCKA(intra_weight=10.0, inter_weight=10.0, feature_weight=None, ramp=None)
    method = CombinedMethod([rcka, FitNet(layer_pairs)])
    task = Segmentation(3, names=NAMES)
    distiller = Distiller(student, FrozenTeacher(teacher), method, task)
    distiller.setup(batch)
    terms = distiller.train()(batch)
    assert {"rcka/intra", "rcka/inter"} < set(terms)
    assert all(term.isfinite() for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())
    out = student.eval()(batch.inputs)
    assert Output(out).logits.shape == (2, 3, 48, 64)
    metrics = task.metrics()
    metrics.update(out, batch, teacher(batch.inputs))
    figures = metrics.compute()
    assert list(figures) == [
        "miou",
        "accuracy",
        *[f"iou/{name}" for name in NAMES],
        "agreement",
        "num_samples",
    ]
    assert figures["num_samples"] == 2 * 44 * 64


def test_the_auxiliary_head_has_a_weight(batch: Any) -> None:
    out = OrderedDict(out=torch.randn(2, 3, 48, 64), aux=torch.randn(2, 3, 48, 64))
    alone = Segmentation(3, aux_weight=0.0).loss(out, batch)
    both = Segmentation(3, aux_weight=0.5).loss(out, batch)
    aux = Segmentation(3).loss(out["aux"], batch)
    torch.testing.assert_close(both, alone + 0.5 * aux)


def test_small_logits_are_resized_and_ignored_pixels_leave_the_loss(batch: Any) -> None:
    task = Segmentation(3)
    scores = torch.randn(2, 3, 12, 16)
    full = nn.functional.interpolate(scores, (48, 64), mode="bilinear", align_corners=False)
    expected = nn.functional.cross_entropy(full[:, :, 4:], batch.labels[:, 4:])
    for out in (scores, {"logits": scores}, {"out": scores}):
        torch.testing.assert_close(task.loss(out, batch), expected)
    nothing = batch.with_fields({"labels": torch.full_like(batch.labels, -100)})
    assert task.loss(scores, nothing) == 0


def test_a_dict_batch_is_a_batch() -> None:
    masks = torch.ones(1, 8, 8, dtype=torch.int64)
    batch = Batch.of({"pixel_values": torch.zeros(1, 3, 8, 8), "labels": masks})
    task = Segmentation(2)
    assert task.loss({"logits": torch.zeros(1, 2, 2, 2)}, batch).item() == pytest.approx(
        0.6931, abs=1e-4
    )
    assert list(task.inputs(batch)[0]) == ["pixel_values"]


def test_the_figures_are_torchmetrics_and_add_up_over_batches(batch: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    outs = [torch.randn(2, 4, 48, 64, generator=generator) for _ in range(2)]
    for out in outs:
        out[:, 3] = -100.0  # a class that neither occurs nor is found
    task = Segmentation(4, names=["a", "b", "c", "d"])
    metrics = task.metrics()
    for out in outs:
        metrics.update(out, batch, out)
    figures = metrics.compute()
    reference = MulticlassJaccardIndex(4, average="none", ignore_index=-100)
    for out in outs:
        reference.update(out, batch.labels)
    expected = reference.compute()[:3]
    assert [figures[f"iou/{name}"] for name in "abc"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert figures["iou/d"] != figures["iou/d"]  # NaN
    assert figures["miou"] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert figures["agreement"] == 1.0
    assert figures["num_samples"] == 2 * 2 * 44 * 64


def test_a_perfect_network_is_perfect(batch: Any) -> None:
    metrics = Segmentation(3).metrics()
    perfect = nn.functional.one_hot(batch.labels.clamp(min=0), 3).permute(0, 3, 1, 2).float()
    metrics.update(perfect, batch)
    assert metrics.compute() == {"miou": 1.0, "accuracy": 1.0, "num_samples": 2.0 * 44 * 64}
    with pytest.raises(UserError, match="nothing to evaluate"):
        Segmentation(3).metrics().compute()


def test_overlays_are_masks(batch: Any) -> None:
    task = Segmentation(3)
    assert torch.equal(task.overlays(batch)[1].mask, batch.labels[1])
    overlays = task.overlays(batch, {"out": torch.randn(2, 3, 12, 16)})
    assert [overlay.mask.shape for overlay in overlays] == [(48, 64)] * 2


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (torch.zeros(2, 5, 48, 64), r"gives \(2, 5, 48, 64\), but the task has 3 classes"),
        (torch.zeros(2, 3), r"gives \(2, 3\)"),
        ({"boxes": 1}, "gives NoneType"),
        (torch.zeros(3, 3, 48, 64), "give one mask"),
    ],
)
def test_an_output_that_does_not_fit_is_told(out: Any, message: str, batch: Any) -> None:
    with pytest.raises(UserError, match=message):
        Segmentation(3).loss(out, batch)


def test_a_class_that_the_task_does_not_have_is_told(batch: Any) -> None:
    with pytest.raises(UserError, match=r"run from 0 to 2, but the task has 2 \(0 to 1\)"):
        Segmentation(2).loss(torch.zeros(2, 2, 48, 64), batch)
    with pytest.raises(UserError, match="run from 0 to 2"):
        Segmentation(2).validate(torch.zeros(2, 2, 48, 64), batch)


def test_the_data_must_have_the_classes_of_the_task(batch: Any) -> None:
    data = SimpleNamespace(classes=NAMES)
    Segmentation(3).validate(torch.zeros(2, 3, 48, 64), batch, data)
    with pytest.raises(UserError, match=r"the data has 3 classes, but task\.num_classes is 4"):
        Segmentation(4).validate(torch.zeros(2, 3, 48, 64), batch, data)


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="at least 2"):
        Segmentation(1)
    with pytest.raises(UserError, match="one for each of the 3"):
        Segmentation(3, names=["a"])


def test_a_teacher_is_cached_by_its_logits(batch: Any) -> None:
    teacher = FrozenTeacher(torchvision_network("lraspp").eval())
    cached = CachedTeacher(teacher, Segmentation(3), lambda: [batch], 2).with_taps(["backbone.0"])
    output = cached(batch, (batch.inputs,))
    torch.testing.assert_close(output.logits, teacher.model(batch.inputs)["out"])


def recipe(root: Path, method: Any, teacher: nn.Module | None, epochs: int = 16) -> Recipe:
    data = VOCSegmentation(str(root), names=NAMES, validation=0.25, augment=False)
    torch.manual_seed(0)
    optimizer: Any = lambda parameters: torch.optim.AdamW(parameters, lr=1e-2)  # noqa: E731
    train = TrainConfig(
        epochs=epochs,
        batch_size=3,
        eval_batch_size=8,
        optimizer=optimizer,
        eval_every=8,
        num_threads=1,
    )
    student = StudentConfig(model=unet(3, width=4, convs=1))
    return Recipe(
        student=student,
        task=Segmentation(3, names=NAMES),
        data=data,
        method=method,
        teacher=None if teacher is None else TeacherConfig(model=teacher, preflight=False),
        train=train,
    )


@pytest.mark.parametrize("name", ["baseline", "pcka", "ssim"])
def test_a_short_training_finds_the_bricks(name: str, tmp_path: Path) -> None:
    root = write_voc_masks(tmp_path / "data", {"train": 24, "val": 4})
    torch.manual_seed(7)
    layer_pairs = {"up1": "up1"}
    method = {
        "baseline": Baseline(),
        "pcka": PCKA(layer_pairs, intra_weight=1.0, patch_size="auto"),
        "ssim": SSIM(layer_pairs, weight=0.1),
    }[name]
    teacher = None if name == "baseline" else unet(3, width=6, convs=1)
    metrics = fit(recipe(root, method, teacher), tmp_path / "run")
    assert metrics["test"]["miou"] > 0.5  # one class everywhere is worth less than 0.33
    pictures = list((tmp_path / "run/pictures").glob("*-truth.png"))
    assert pictures

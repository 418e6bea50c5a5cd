"""SRD in training: unlabeled images, networks of several kinds, and where its terms go."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import (
    distill,
    image_batch,
    make_step,
    resnet,
    setup_method,
    two_ranks,
    vit,
)
from tutelage import SRD, Distiller, FrozenTeacher, Method, NoTeacher, UserError
from tutelage.data import Samples
from tutelage.methods._projection import pooled
from tutelage.models import small_cnn

EXAMPLES: dict[str, Callable[[], Method]] = {
    "srd": SRD,
    "srd kl": lambda: SRD(distance="kl", feature_weight=10.0, maps=True),
}


def batch(count: int, labeled: int) -> tuple[Tensor, Tensor]:
    images, labels = image_batch(count)
    labels[labeled:] = -100
    return images, labels


def joint(example: tuple[Tensor, Tensor], method: SRD | None = None) -> Distiller:
    """Return a distiller in eval mode, so that images do not meet in batch norm."""
    torch.manual_seed(1)
    distiller = distill(
        method or SRD(),
        student=small_cnn(width=4),
        teacher=small_cnn(width=6),
        batch=example,
    )
    return distiller.eval()


def test_every_image_meets_its_own_teacher_logits() -> None:
    images, labels = batch(8, labeled=4)
    distiller = joint((images, labels))
    together = distiller((images, labels))
    single = [distiller((images[i : i + 1], labels[i : i + 1])) for i in range(8)]
    for name in ("srd", "srd/feature"):
        mean = torch.stack([terms[name] for terms in single]).mean()
        assert torch.isclose(together[name], mean)


def test_joint_and_separate_batches_agree_when_norms_are_fixed() -> None:
    images, labels = batch(12, labeled=4)
    distiller = joint((images, labels))
    together = distiller((images, labels))
    labeled = distiller((images[:4], labels[:4]))
    unlabeled = distiller((images[4:], labels[4:]))
    assert torch.isclose(together["task"], labeled["task"])
    assert unlabeled["task"].item() == 0.0
    for name in ("srd", "srd/feature"):
        assert torch.isclose(together[name], (4 * labeled[name] + 8 * unlabeled[name]) / 12)


def test_the_order_of_the_unlabeled_images_does_not_matter() -> None:
    images, labels = batch(12, labeled=4)
    distiller = joint((images, labels)).train()
    order = torch.cat((torch.arange(4), 4 + torch.randperm(8)))
    for name, term in distiller((images, labels)).items():
        assert torch.isclose(distiller((images[order], labels[order]))[name], term)


def test_a_batch_without_any_label_teaches_without_one() -> None:
    distiller = joint(batch(6, labeled=0))
    terms = distiller(batch(6, labeled=0))
    assert terms["task"].item() == 0.0
    sum(terms.values()).backward()
    last = distiller.student.classifier.weight.grad
    assert torch.equal(last, torch.zeros_like(last))  # no label, and the terms stop at the features
    assert distiller.student.stage3[0].weight.grad.abs().sum() > 0
    hard = joint(batch(6, labeled=0), SRD(distance="ce"))(batch(6, labeled=0))
    assert hard["srd"].item() == 0.0


def rank_logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    student = torch.rand(6, 5, 3, 3, generator=generator, dtype=torch.float64)
    return student, torch.rand(6, 7, 3, 3, generator=generator, dtype=torch.float64)


def correlate_on_a_rank(rank: int | None) -> dict[str, Tensor]:
    """Return loss and gradient of the correlation on a rank's half; on all images for None."""
    torch.manual_seed(4)
    student, teacher = rank_logits()
    rows = slice(None) if rank is None else slice(3 * rank, 3 * rank + 3)
    student = student[rows].requires_grad_()
    head = nn.Linear(7, 4).double().requires_grad_(False)
    step = make_step(
        None,
        head(pooled(teacher[rows])),
        student_features={"s": student},
        teacher_features={"t": teacher[rows]},
    )
    method = SRD(student_layer="s", teacher_layer="t", classifier="fc", distance="dist")
    setup_method(method, step, FrozenTeacher(nn.ModuleDict({"fc": head})))
    method.connector.double().eval()  # batch norm sees its own rank only
    loss = method(step)["srd"]
    loss.backward()
    return {"loss": loss, "gradient": student.grad}


def test_the_correlation_is_that_of_the_images_of_all_ranks(tmp_path: Path) -> None:
    ranks = two_ranks(correlate_on_a_rank, tmp_path)
    whole = correlate_on_a_rank(None)
    for rank, result in enumerate(ranks):
        assert result["loss"].item() == pytest.approx(whole["loss"].item(), abs=1e-12)
        # Data-parallel training averages over the two ranks.
        rows = slice(3 * rank, 3 * rank + 3)
        assert torch.allclose(result["gradient"] / 2, whole["gradient"][rows], rtol=0, atol=1e-12)


def test_a_teacher_in_half_precision_teaches_under_autocast() -> None:
    example = image_batch(4, size=32, channels=3, num_classes=7)
    with torch.autocast("cpu", torch.bfloat16):
        distiller = distill(
            SRD(),
            student=small_cnn(7, 3, width=4),
            teacher=small_cnn(7, 3, width=6).bfloat16(),
            batch=example,
            num_classes=7,
        )
        assert all(term.isfinite() for term in distiller(example).values())


@pytest.mark.parametrize("size", [(64, 32), (32, 128)])
def test_wide_images_are_taken_for_what_they_are(size: tuple[int, int]) -> None:
    """Two of the sizes have as many channels as rows."""
    distill(
        SRD(),
        student=small_cnn(7, 3, width=2),
        teacher=small_cnn(7, 3, width=4),
        batch=image_batch(4, size=size, channels=3, num_classes=7),
        num_classes=7,
    )


def test_vectors_are_connected_by_a_linear_layer() -> None:
    images, labels = image_batch(4, size=32, channels=3, num_classes=7)
    labels[2] = -100
    distiller = distill(
        SRD(student_layer="head_drop", teacher_layer="layer4"),
        student=vit(depth=2),
        teacher=resnet(),
        batch=(images, labels),
        num_classes=7,
    )
    parts = [type(part) for part in distiller.method.connector]
    assert parts == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    sum(distiller((images, labels)).values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in distiller.method.parameters())


def test_outputs_need_not_be_classes() -> None:
    """Regression of key points: any task, any number of outputs, no labels."""
    student, teacher = torch.rand(4, 5, 6, 6), torch.rand(4, 7, 3, 3)
    head = nn.Linear(7, 16)
    step = make_step(
        None,
        head(pooled(teacher)),
        student_features={"s": student},
        teacher_features={"t": teacher},
    )
    method = SRD(student_layer="s", teacher_layer="t", classifier="head")
    setup_method(method, step, FrozenTeacher(nn.ModuleDict({"head": head})))
    assert set(method(step)) == {"srd", "srd/feature"}


def test_terms_without_a_weight_are_left_out() -> None:
    example = batch(6, labeled=3)
    assert list(joint(example, SRD(feature_weight=None))(example)) == ["task", "srd"]
    assert list(joint(example, SRD(weight=0.0))(example)) == ["task", "srd/feature"]
    doubled = joint(example, SRD(weight=2.0))(example)["srd"]
    assert torch.isclose(doubled, 2 * joint(example)(example)["srd"])


def test_unlabeled_images_join_the_training_data() -> None:
    class Recorder(Samples):
        shares: dict[str, float] | None = None

        def __len__(self) -> int:
            return 0

        def batch(self, keys: object) -> object:
            raise NotImplementedError

        def subset(self, positions: object) -> object:
            raise NotImplementedError

        def with_streams(self, shares: dict[str, float]) -> str:
            self.shares = shares
            return "with streams"

    train = Recorder()
    assert SRD(unlabeled={"near": 0.5}).build_data(train, NoTeacher()) == "with streams"
    assert train.shares == {"near": 0.5}
    assert SRD().build_data(train, NoTeacher()) is train


def test_a_copy_before_training_is_whole() -> None:
    method = SRD(unlabeled={"near": 0.5})
    assert repr(copy.deepcopy(method)) == repr(method)


def test_every_setting_is_tried_before_training() -> None:
    def set_up(method: SRD) -> None:
        distill(
            method,
            student=small_cnn(7, 3, width=4),
            teacher=small_cnn(7, 3, width=6),
            batch=image_batch(4, size=32, channels=3, num_classes=7),
            num_classes=7,
        )

    with pytest.raises(
        UserError, match=r"SRD's maps are \(N, C, H, W\), got .*; set maps to False"
    ):
        set_up(SRD(student_layer="flatten", teacher_layer="flatten", maps=True))
    with pytest.raises(UserError, match="SRD has no term left"):
        set_up(SRD(weight=None, feature_weight=0.0))

"""SRD against the numbers of the official code, with classifiers of several libraries, and where that code must not be
followed."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import timm.models
import torch
import torchvision
from timm.models.resnet import BasicBlock
from torch import Tensor, nn
from torch.nn import functional as F

from tests.vectors import cases, tensor
from tutelage import SRD, Absent, Classification, Distiller, Network, Output, Step, UserError
from tutelage.engine.preflight import buffers_hash
from tutelage.methods import kd_loss, srd_feature_loss, srd_loss
from tutelage.methods.connector import check_layer, connector, pooled
from tutelage.methods.head import Head
from tutelage.models import small_cnn, wrn_16_1

GIVEN = cases("srd")
WHOLE = [name for name, case in GIVEN.items() if case["group"] == "srd"]


def value(case: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor("srd", f"{case}_{key}", dtype)


def classifier(case: str, dtype: torch.dtype) -> nn.Linear:
    weight = value(case, "fc_w", dtype)
    head = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
    head.load_state_dict({"weight": weight, "bias": value(case, "fc_b", dtype)})
    return head.requires_grad_(False)


def official(case: str, dtype: torch.dtype = torch.float64) -> tuple[SRD, Step]:
    """Return our method with a case's weights, and the joint batch."""
    given = GIVEN[case]
    student = value(case, "feat_s", dtype).requires_grad_()
    teacher, head = value(case, "feat_t", dtype), classifier(case, dtype)
    method = SRD("s", "t", "fc", feature_weight=given["fm_weight"])
    labels = torch.full((len(student),), -100)
    labels[: given["B_labelled"]] = value(case, "labels", torch.int64)
    step = Step(
        Output(value(case, "logits_s", dtype), {"s": student}),
        Output(head(pooled(teacher)), {"t": teacher}),
        (None, labels),
        lambda out: out,
    )
    method.setup(step, Network(nn.ModuleDict({"fc": head})))
    state = {"0.weight": value(case, "conv_w"), "1.weight": value(case, "bn_weight"), "1.bias": value(case, "bn_bias")}
    method.connector.to(dtype).load_state_dict({**method.connector.state_dict(), **state})
    return method, step


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float64, 0, 1e-12), (torch.float32, 1e-5, 1e-6)])
def test_values_and_gradient_are_the_official_ones(case: str, dtype: torch.dtype, rtol: float, atol: float) -> None:
    def same(ours: Tensor, key: str) -> None:
        torch.testing.assert_close(ours.detach(), value(case, key, dtype), rtol=rtol, atol=atol)

    method, step = official(case, dtype)
    same(step.teacher.out, "z_t")
    student, weight = step.student.tap("s"), GIVEN[case]["fm_weight"]
    terms = method(step)
    same(terms["srd"], "L_srd")
    same(terms["srd.feature"] / weight, "L_fm")
    total = sum(terms.values())
    same(total, "L_kd")
    labels = step.batch[1]
    supervised = F.cross_entropy(step.student.out, labels, ignore_index=-100)
    same(supervised, "L_ce")
    same(supervised + total, "L_total")
    total.backward()
    same(student.grad, "grad_feat_s_L_kd")
    norm = method.connector[1]
    same(norm.running_mean, "bn_running_mean_after")
    same(norm.running_var, "bn_running_var_after")
    same(method.connector.eval()(student), "x_hat_eval")
    norm.reset_running_stats()
    features = method.connector.train()(student)
    same(features, "x_hat")
    crossed = classifier(case, dtype)(pooled(features))
    same(crossed, "z_hat")
    same(srd_loss(crossed, step.teacher.out, "kl", 1.0), "L_srd_kl_T1")
    same(srd_loss(crossed, step.teacher.out, "kl", 4.0), "L_srd_kl_T4")
    same(srd_loss(crossed, step.teacher.out, "ce", labels=labels), "L_srd_ce_hard")


@pytest.mark.parametrize("case", [name for name, case in GIVEN.items() if case["group"] == "DistillKL"])
def test_the_divergence_is_the_official_one(case: str) -> None:
    logits = value(case, "logits_s"), value(case, "logits_t")
    assert srd_loss(*logits, "kl", GIVEN[case]["T"]).item() == pytest.approx(value(case, "kd").item(), abs=1e-12)
    assert torch.equal(srd_loss(*logits, "kl", 3.0), kd_loss(*logits, 3.0))


def test_an_unlabelled_image_meets_its_own_teacher_logits() -> None:
    mine, own, labelled = (value("case7", key) for key in ("z_hat_u", "z_t_u", "z_t_l"))
    assert srd_loss(mine, own).item() == pytest.approx(value("case7", "L_srd_u_fixed").item(), abs=1e-12)
    assert srd_loss(mine, labelled).item() == pytest.approx(value("case7", "L_srd_u_official_bug").item(), abs=1e-12)
    distiller = joint(batch(8, labelled=4))
    whole = distiller(batch(8, labelled=4))
    alone = [distiller(tuple(part[i : i + 1] for part in batch(8, labelled=4))) for i in range(8)]
    for name in ("srd", "srd.feature"):
        assert torch.isclose(whole[name], torch.stack([terms[name] for terms in alone]).mean())


def batch(count: int, labelled: int, size: int = 28) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(10, (count,), generator=generator)
    labels[labelled:] = -100
    return torch.rand(count, 1, size, size, generator=generator), labels


def joint(example: tuple[Tensor, Tensor], method: SRD | None = None) -> Distiller:
    """Return a distiller in eval mode, so that images do not meet in batch norm."""
    torch.manual_seed(1)
    student, teacher = small_cnn(width=4), small_cnn(width=6)
    distiller = Distiller(student, Network(teacher), method or SRD(), Classification(num_classes=10))
    distiller.setup(example)
    return distiller.eval()


def test_joint_and_separate_batches_agree_when_norms_are_fixed() -> None:
    images, labels = batch(12, labelled=4)
    distiller = joint((images, labels))
    whole = distiller((images, labels))
    apart = [distiller((images[rows], labels[rows])) for rows in (slice(4), slice(4, None))]
    assert torch.isclose(whole["task"], apart[0]["task"])
    assert apart[1]["task"].item() == 0.0
    for name in ("srd", "srd.feature"):
        assert torch.isclose(whole[name], (4 * apart[0][name] + 8 * apart[1][name]) / 12)


def test_the_order_of_the_unlabelled_images_does_not_matter() -> None:
    images, labels = batch(12, labelled=4)
    distiller = joint((images, labels)).train()
    order = torch.cat((torch.arange(4), 4 + torch.randperm(8)))
    for name, term in distiller((images, labels)).items():
        assert torch.isclose(distiller((images[order], labels[order]))[name], term)


def test_a_batch_without_any_label_teaches_without_one() -> None:
    distiller = joint(batch(6, labelled=0))
    terms = distiller(batch(6, labelled=0))
    assert terms["task"].item() == 0.0
    sum(terms.values()).backward()
    last = distiller.student.classifier.weight.grad
    assert torch.equal(last, torch.zeros_like(last))  # no label, and the terms stop at the features
    assert distiller.student.stage3[0].weight.grad.abs().sum() > 0
    hard = joint(batch(6, labelled=0), SRD(distance="ce"))(batch(6, labelled=0))
    assert hard["srd"].item() == 0.0


def test_both_terms_are_one_quadratic_form_and_the_bias_cancels() -> None:
    method, step = official("case0")
    terms = method(step)
    norm = method.connector[1]
    norm.reset_running_stats()
    d = pooled(method.connector(step.student.tap("s"))) - pooled(step.teacher.tap("t"))
    w, classes = value("case0", "fc_w"), value("case0", "fc_w").shape[0]
    form = torch.eye(w.shape[1], dtype=w.dtype) / w.shape[1] + w.T @ w / classes
    assert sum(terms.values()).item() == pytest.approx(torch.einsum("ni,ij,nj->n", d, form, d).mean().item(), abs=1e-12)
    method._head.module.bias.add_(5.0)
    assert method(step)["srd"].item() == pytest.approx(terms["srd"].item(), abs=1e-12)


def test_without_the_feature_term_directions_stay_free() -> None:
    """More channels than classes: features may move in the kernel of the classifier unseen."""
    head = nn.Linear(6, 3).requires_grad_(False)
    free = torch.linalg.svd(head.weight).Vh[3:]
    features = torch.randn(4, 6)
    moved = features + torch.randn(4, 3) @ free
    assert srd_loss(head(moved), head(features)).item() < 1e-10
    assert srd_feature_loss(moved, features) > 0.1


def test_correlation_is_blind_to_scale_and_exact_otherwise() -> None:
    z = torch.randn(5, 4, dtype=torch.float64)
    assert srd_loss(3 * z, z, "dist").item() == pytest.approx(0.0, abs=1e-12)
    other = torch.randn(5, 4, dtype=torch.float64)
    rows = sum(torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(z, other, strict=True)) / 5
    columns = sum(torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(z.T, other.T, strict=True)) / 4
    assert srd_loss(z, other, "dist").item() == pytest.approx((2 - rows - columns).item(), abs=1e-12)
    constant = torch.zeros(5, 4, requires_grad=True)
    srd_loss(constant, z.float(), "dist").backward()
    assert constant.grad.isfinite().all()


def test_maps_may_be_compared_position_by_position() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    assert torch.isclose(srd_feature_loss(teacher, teacher + 1, maps=True), torch.tensor(1.0))
    cut = F.avg_pool2d(teacher, 2)
    assert torch.isclose(srd_feature_loss(student, teacher, maps=True), F.mse_loss(student, cut))
    shifted = teacher.roll(1, -1)
    assert srd_feature_loss(shifted, teacher).item() == pytest.approx(0.0, abs=1e-12)
    assert srd_feature_loss(shifted, teacher, maps=True) > 0.1


def test_maps_of_other_sizes_and_not_square_fit_the_teachers_head() -> None:
    """The official heads pool with a fixed 8×8 window, or with the height as both sides."""
    student, teacher = torch.rand(3, 5, 4, 4), torch.rand(3, 7, 8, 6)
    head = nn.Linear(7, 4)
    step = Step(Output(None, {"s": student}), Output(head(teacher.mean((2, 3))), {"t": teacher}), None, lambda out: out)
    method = SRD("s", "t", "fc")
    method.setup(step, Network(nn.ModuleDict({"fc": head})))
    features = method.connector.eval()(student)
    expected = F.mse_loss(head(features.mean((2, 3))), step.teacher.out)
    assert torch.isclose(method(step)["srd"], expected)


def resnet(**settings: Any) -> nn.Module:
    return timm.models.ResNet(BasicBlock, (1, 1, 1, 1), 7, channels=(10, 12, 16, 24), stem_width=8, **settings)


def vit() -> nn.Module:
    return timm.models.VisionTransformer(32, 8, 3, 7, embed_dim=12, depth=2, num_heads=2)


def swin() -> nn.Module:
    return timm.models.SwinTransformer(32, 2, 3, 7, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)


def hugging_face() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=7, return_dict=True
    )
    return ResNetForImageClassification(config)


HEADS = {
    "own": (lambda: small_cnn(7, 3), "stage3", "classifier", True),
    "own pre-activation": (lambda: wrn_16_1(7), "last", "classifier", True),
    "timm resnet": (resnet, "layer4", "fc", True),
    "timm resnet with dropout": (lambda: resnet(drop_rate=0.5), "global_pool", "fc", True),
    "timm vit": (vit, "head_drop", "head", False),
    "timm swin": (swin, "head.global_pool", "head.fc", False),
    "torchvision resnet": (lambda: torchvision.models.resnet18(num_classes=7), "layer4", "fc", True),
    "torchvision mobilenet": (lambda: torchvision.models.mobilenet_v2(num_classes=7), "features", "classifier", True),
    "hugging face": (hugging_face, "resnet.pooler", "classifier", True),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_teachers_classifier_is_found(name: str) -> None:
    make, layer, expected, positive = HEADS[name]
    teacher = Network(make())
    student = small_cnn(7, 3, width=4)
    distiller = Distiller(student, teacher, SRD(teacher_layer=layer), Classification(num_classes=7))
    given = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, -100]))
    distiller.setup(given)
    method = distiller.method
    assert isinstance(method, SRD)
    assert method._head.module is teacher.module(expected)
    assert (type(method.connector[-1]) is nn.ReLU) == positive
    sum(distiller(given).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())
    assert all(p.grad is None for p in teacher.network.parameters())
    assert set(distiller.state_dict()) == {
        *(f"student.{key}" for key in student.state_dict()),
        *(f"method.connector.{key}" for key in method.connector.state_dict()),
    }


def test_a_head_that_pools_itself_gets_maps() -> None:
    teacher = timm.models.ConvNeXt(num_classes=7, depths=(1, 1, 1, 1), dims=(4, 6, 8, 12))
    distiller = Distiller(
        small_cnn(7, 3, width=4), Network(teacher), SRD(teacher_layer="stages"), Classification(num_classes=7)
    )
    given = (torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 3]))
    distiller.setup(given)
    assert distiller.method._head == Head(teacher.head, maps=True)
    assert type(distiller.method.connector[-1]) is nn.BatchNorm2d  # the feature has negative values
    assert all(term.isfinite() for term in distiller(given).values())
    assert Head(teacher.head, maps=True)(torch.rand(2, 12)).shape == (2, 7)


def test_a_head_of_one_position_gets_maps_of_any_size() -> None:
    """The head of torchvision's ConvNeXt norms, flattens and does not pool; its input is tapped after the pooling."""
    head = nn.Sequential(nn.Flatten(1), nn.Linear(12, 7))
    teacher = nn.Sequential(OrderedDict(body=nn.Conv2d(3, 12, 1), avgpool=nn.AdaptiveAvgPool2d(1), classifier=head))
    task = Classification(num_classes=7)
    distiller = Distiller(small_cnn(7, 3, width=4), Network(teacher), SRD(teacher_layer="avgpool"), task)
    given = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    distiller.setup(given)
    assert all(term.isfinite() for term in distiller(given).values())


@pytest.mark.parametrize("size", [(64, 32), (32, 128)])
def test_wide_images_are_taken_for_what_they_are(size: tuple[int, int]) -> None:
    """Two of the sizes have as many channels as rows."""
    networks = [small_cnn(7, 3, width=width) for width in (2, 4)]
    distiller = Distiller(networks[0], Network(networks[1]), SRD(), Classification(num_classes=7))
    distiller.setup((torch.rand(4, 3, *size), torch.tensor([0, 1, 2, 3])))
    with pytest.raises(UserError, match=r"the teacher's layer 'norm' gives \(2, 2, 4, 512\)"):
        check_layer(torch.zeros(2, 2, 4, 512), "teacher", "norm", (64, 128))


def test_a_teacher_in_half_precision_teaches_under_autocast() -> None:
    teacher = Network(small_cnn(7, 3, width=6).bfloat16())
    distiller = Distiller(small_cnn(7, 3, width=4), teacher, SRD(), Classification(num_classes=7))
    given = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    with torch.autocast("cpu", torch.bfloat16):
        distiller.setup(given)
        assert all(term.isfinite() for term in distiller(given).values())


def test_every_setting_is_tried_before_training() -> None:
    networks, task = [small_cnn(7, 3, width=width) for width in (4, 6)], Classification(num_classes=7)
    given = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    vectors = SRD(student_layer="flatten", teacher_layer="flatten", maps=True)
    with pytest.raises(UserError, match=r"SRD's maps are \(N, C, H, W\), got .*; set maps to False"):
        Distiller(networks[0], Network(networks[1]), vectors, task).setup(given)
    with pytest.raises(UserError, match="SRD has no term left"):
        Distiller(networks[0], Network(networks[1]), SRD(weight=None, feature_weight=0.0), task).setup(given)
    with pytest.raises(UserError, match="the temperature of SRD must be positive, got 0"):
        SRD(distance="kl", temperature=0)


def test_vectors_are_connected_by_a_linear_layer() -> None:
    distiller = Distiller(
        vit(), Network(resnet()), SRD(student_layer="head_drop", teacher_layer="layer4"), Classification(num_classes=7)
    )
    given = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, -100, 3]))
    distiller.setup(given)
    assert [type(part) for part in distiller.method.connector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    sum(distiller(given).values()).backward()
    assert all(p.grad.abs().sum() > 0 for p in distiller.method.parameters())


def test_the_connector_starts_as_the_official_one() -> None:
    made = connector(torch.rand(2, 512, 4, 4), torch.rand(2, 256, 8, 8))
    assert made[0].weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert made[0].bias is None
    assert isinstance(made[-1], nn.ReLU)
    assert not isinstance(connector(torch.rand(2, 3, 4, 4), torch.rand(2, 5, 4, 4), relu=False)[-1], nn.ReLU)
    assert isinstance(connector(torch.rand(2, 3), -torch.rand(2, 5), relu=True)[-1], nn.ReLU)


def test_a_tap_before_the_last_activation_is_refused() -> None:
    student, task = small_cnn(7, 3, width=4), Classification(num_classes=7)
    example = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))
    for teacher, layer in (
        (wrn_16_1(7), "stage3"),  # before the last norm
        (small_cnn(7, 3), "stage3.1"),  # before the last ReLU
        (small_cnn(7, 3), "stage2"),
    ):
        distiller = Distiller(student, Network(teacher), SRD(teacher_layer=layer), task)
        with pytest.raises(UserError, match=f"the teacher's layer '{layer}' .* logits \\(relative error.*tap what the"):
            distiller.setup(example)


def test_the_teacher_stays_as_it_was_and_its_dropout_off() -> None:
    teacher = small_cnn(width=6)
    teacher.classifier = nn.Sequential(nn.Dropout(0.5), nn.Linear(24, 10))
    distiller = Distiller(small_cnn(width=4), Network(teacher), SRD(), Classification(num_classes=10))
    given = batch(8, labelled=4)
    distiller.setup(given)
    before = buffers_hash(teacher)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
    distiller.train()
    teacher.classifier.train()  # by mistake; the network itself stays in eval mode
    twice = [distiller(given)["srd"].item() for _ in range(2)]
    assert twice[0] == twice[1]
    for _ in range(2):
        sum(distiller(given).values()).backward()
        optimizer.step()
    assert buffers_hash(teacher) == before
    assert all(p.grad is None for p in teacher.parameters())


def test_outputs_need_not_be_classes() -> None:
    """Regression of key points: any task, any number of outputs, no labels."""
    student, teacher = torch.rand(4, 5, 6, 6), torch.rand(4, 7, 3, 3)
    head = nn.Linear(7, 16)
    step = Step(Output(None, {"s": student}), Output(head(pooled(teacher)), {"t": teacher}), None, lambda out: out)
    method = SRD("s", "t", "head")
    method.setup(step, Network(nn.ModuleDict({"head": head})))
    assert set(method(step)) == {"srd", "srd.feature"}


def test_terms_without_a_weight_are_left_out() -> None:
    given = batch(6, labelled=3)
    assert list(joint(given, SRD(feature_weight=None))(given)) == ["task", "srd"]
    assert list(joint(given, SRD(weight=0.0))(given)) == ["task", "srd.feature"]
    doubled = joint(given, SRD(weight=2.0))(given)["srd"]
    assert torch.isclose(doubled, 2 * joint(given)(given)["srd"])


def test_a_copy_before_training_is_whole() -> None:
    method = SRD(unlabelled={"near": 0.5})
    assert repr(copy.deepcopy(method)) == repr(method)


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"SRD has a distance in .*, got 'l1'"):
        SRD(distance="l1")
    with pytest.raises(UserError, match="'ce' needs labels; got 'ce', labels None"):
        srd_loss(torch.zeros(2, 3), torch.zeros(2, 3), "ce")
    with pytest.raises(UserError, match=r"logits \(N, K\) of one shape, got \(2, 3\) and \(2, 4\)"):
        srd_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UserError, match=r"got \(2, 3\) and \(4, 3\)"):
        srd_loss(torch.zeros(2, 3), torch.zeros(4, 3))
    with pytest.raises(UserError, match=r"\(2, 3\) from the student and \(2, 5\) from the teacher"):
        srd_feature_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5))
    example, task = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])), Classification(num_classes=7)
    for method, message in (
        (SRD(teacher_layer="blocks.1"), r"the teacher's layer 'blocks.1' gives \(4, 17, 12\); tap a map"),
        (SRD(teacher_layer="head_drop", classifier="clasifier"), "no module 'clasifier' in VisionTransformer"),
        (SRD(teacher_layer="head_drop", classifier="norm"), "its classifier .'norm'. do not give its logits"),
    ):
        with pytest.raises(UserError, match=message):
            Distiller(small_cnn(7, 3), Network(vit()), method, task).setup(example)
    with pytest.raises(UserError, match=r"the student's layer 'layers' gives \(4, 8, 8, 16\); tap a map"):
        Distiller(swin(), Network(resnet()), SRD("layers", "layer4"), task).setup(example)
    with pytest.raises(UserError, match=r"taps .* of a teacher, but there is none"):
        Distiller(small_cnn(), Absent(), SRD(), task)
    teacher = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UserError, match="the teacher has none of the classifiers"):
        Distiller(small_cnn(7, 3), Network(teacher), SRD(teacher_layer="2"), task).setup(example)

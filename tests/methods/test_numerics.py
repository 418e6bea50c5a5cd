"""Losses where float32 is short of digits or range, against float64; and wrong arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tutelage.methods
from tutelage import UserError
from tutelage.methods import (
    afd_loss,
    cd_loss,
    ckd_loss,
    dist_loss,
    dkd_loss,
    embed_matching_loss,
    fitnet_loss,
    fpd_loss,
    kd_hard_loss,
    kd_loss,
    margin_mse_loss,
    ofa_loss,
    okdhp_loss,
    pcka_loss,
    rcka_feature_loss,
    rcka_loss,
    residual_kd_loss,
    rtk_loss,
    score_distillation_loss,
    srd_feature_loss,
    srd_loss,
    ssim_loss,
)
from tutelage.methods._divergence import HIGH
from tutelage.methods.residual_kd.losses import error_removed

Call = Callable[[Any, Any], Any]

LABELS = torch.tensor([0, 3, 1, 2, -100, 4])
MAPS = torch.rand(2, 3, 8, 8)


# ---- high temperatures ----


@pytest.mark.parametrize("temperature", [HIGH, HIGH + 1, 1e3, 1e4, 1e6, 1e8])
def test_kd_at_a_high_temperature_is_half_the_variance_of_the_difference(
    temperature: float,
) -> None:
    student, teacher = 3 * torch.randn(2, 64, 100)
    leaf = student.clone().requires_grad_()
    found = kd_loss(leaf, teacher, temperature=temperature)
    # Hinton, section 2.1: T² KL → ½ mean_c (d - mean d)², and its gradient.
    gap = (teacher - student).double()
    gap = gap - gap.mean(1, keepdim=True)
    limit = gap.square().mean(1).mean() / 2
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(limit.item(), rel=max(3 / temperature, 1e-5))
    slope = -gap / gap.numel()
    error = torch.autograd.grad(found, leaf)[0].double() - slope
    assert error.norm() <= max(10 / temperature, 1e-5) * slope.norm()


@pytest.mark.parametrize("temperature", [1.0, HIGH - 1, HIGH + 1, 200.0])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_both_forms_of_the_divergence_agree(temperature: float, scale: float) -> None:
    student, teacher = scale * torch.randn(2, 6, 5, dtype=torch.float64)
    student.requires_grad_()
    value = kd_loss(student, teacher, temperature=temperature)
    log_s, log_t = (torch.log_softmax(z / temperature, 1) for z in (student, teacher))
    plain = temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()
    assert torch.isclose(value, plain, rtol=1e-9)
    slopes = [torch.autograd.grad(each, student)[0] for each in (value, plain)]
    assert torch.allclose(*slopes, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0, HIGH - 1])
@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_kd_and_dkd_of_logits_near_zero(temperature: float, size: float) -> None:
    student, teacher = size * torch.randn(2, 6, 5)
    leaf = student.clone().requires_grad_()
    found = kd_loss(leaf, teacher, temperature=temperature)
    gap = (teacher - student).double()
    gap = gap - gap.mean(1, keepdim=True)
    assert found.item() == pytest.approx(gap.square().mean(1).mean().item() / 2, rel=3e-3)
    error = torch.autograd.grad(found, leaf)[0].double() + gap / gap.numel()
    assert error.norm() <= 3e-3 * gap.norm() / gap.numel()
    single = dkd_loss(leaf, teacher, LABELS, temperature=temperature)
    wide = student.double().requires_grad_()
    double = dkd_loss(wide, teacher.double(), LABELS, temperature=temperature)
    for name, term in single.items():
        assert term.item() == pytest.approx(double[name].item(), rel=1e-5)
        slope, wide_slope = (
            torch.autograd.grad(value, x, retain_graph=True)[0].double()
            for value, x in ((term, leaf), (double[name], wide))
        )
        assert (slope - wide_slope).norm() <= 1e-5 * wide_slope.norm()


def test_a_student_that_nearly_is_its_teacher() -> None:
    teacher = 3 * torch.randn(6, 5)
    student = (teacher + 1e-5 * torch.randn(6, 5)).requires_grad_()
    value = kd_loss(student, teacher, temperature=HIGH - 1)
    wide = student.detach().double().requires_grad_()
    expected = kd_loss(wide, teacher.double(), temperature=HIGH - 1)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    slope, wide_slope = (
        torch.autograd.grad(value, student)[0],
        torch.autograd.grad(expected, wide)[0],
    )
    assert (slope - wide_slope).norm() <= 1e-5 * wide_slope.norm()


@pytest.mark.parametrize("temperature", [100.0, 1e3, 1e4])
def test_dkd_and_dist_at_a_high_temperature(temperature: float) -> None:
    student, teacher = 3 * torch.randn(2, 6, 20)
    losses: list[Call] = [
        lambda s, t: dkd_loss(s, t, LABELS, temperature=temperature),
        lambda s, t: dist_loss(s, t, temperature=temperature, eps=1e-30),
    ]
    for loss in losses:
        single = loss(student, teacher)
        double = loss(student.double(), teacher.double())
        for name, term in single.items():
            assert term.dtype == torch.float32
            assert term.item() == pytest.approx(double[name].item(), rel=1e-4)


# ---- constant columns, huge maps ----


@pytest.mark.parametrize("offset", [0.1, 1.7, 1e3])
def test_srd_correlations_of_constant_columns_have_no_gradient(offset: float) -> None:
    teacher = torch.randn(64, 100)
    bias = torch.randn(100) + offset
    rows = torch.randn(64, 1).expand(64, 100).clone()
    for constant in (bias.expand(64, 100).clone(), rows, torch.full((64, 100), offset)):
        found = []
        for dtype in (torch.float32, torch.float64):
            leaf = constant.to(dtype).requires_grad_()
            value = srd_loss(leaf, teacher.to(dtype), distance="dist")
            found.append((value.item(), torch.autograd.grad(value, leaf)[0].double()))
        assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
        assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-7)
        assert found[0][1].abs().max() < 0.1
    full = torch.full((8, 5), 0.1)
    assert srd_loss(full, full.clone(), distance="dist").item() == 2.0


@pytest.mark.parametrize("scale", [1.0, 3e9, 1e10, 1e18, 1e20, 1e30])
def test_attention_distances_do_not_depend_on_the_scale(scale: float) -> None:
    student, teacher = torch.rand(2, 2, 3, 8, 8)
    ones = torch.ones(2, 1, 1)
    losses: list[Call] = [
        lambda s, t: afd_loss([s], [t], ones).sum(),
        lambda s, t: rtk_loss([s], [t], ones, top_k=1),
        lambda s, t: residual_kd_loss(s, [0 * s], t, distance="attention")["student"],
    ]
    for loss in losses:
        expected = loss(student, teacher).item()
        close = pytest.approx(expected, rel=1e-4, abs=1e-7)
        assert loss(student, scale * teacher).item() == close
        leaf = (scale * student).requires_grad_()
        value = loss(leaf, teacher)
        assert value.item() == close
        assert torch.autograd.grad(value, leaf)[0].isfinite().all()


# ---- mixed precision, and arguments that are wrong ----


OF_STUDENT_ALONE = ("rd_loss", "rrd_loss", "unkd_loss")  # the teacher chose the items
every_loss = pytest.mark.parametrize(
    "name",
    [
        name
        for name in tutelage.methods.__all__
        if name.endswith("_loss") and name not in OF_STUDENT_ALONE
    ],
)


def call_and_input(name: str) -> tuple[Call, Tensor]:
    """Return a public loss as a function of student and teacher, and what to give as either."""
    maps = torch.rand(6, 3, 16, 16)
    rows = torch.randn(6, 5)
    ones = torch.ones(6, 1, 1)
    calls: dict[str, tuple[Call, Tensor]] = {
        "kd_loss": (kd_loss, rows),
        "kd_hard_loss": (kd_hard_loss, rows),
        "dkd_loss": (lambda s, t: dkd_loss(s, t, LABELS), rows),
        "dist_loss": (dist_loss, rows),
        "ckd_loss": (lambda s, t: ckd_loss(student=s, teacher=t), rows),
        "ofa_loss": (lambda s, t: ofa_loss(s, t, LABELS), rows),
        "rcka_loss": (rcka_loss, rows),
        "rcka_feature_loss": (rcka_feature_loss, rows),
        "fitnet_loss": (fitnet_loss, rows),
        "srd_loss": (srd_loss, rows),
        "srd_feature_loss": (srd_feature_loss, maps),
        "pcka_loss": (lambda s, t: pcka_loss(s, t, patch_size=4), maps),
        "ssim_loss": (ssim_loss, maps),
        "residual_kd_loss": (lambda s, t: residual_kd_loss(s, [s], t), rows),
        "afd_loss": (lambda s, t: afd_loss([s], [t], ones), maps),
        "rtk_loss": (lambda s, t: rtk_loss([s], [t], ones, top_k=1), maps),
        "fpd_loss": (fpd_loss, maps),
        "okdhp_loss": (okdhp_loss, maps),
        "cd_loss": (cd_loss, rows),
        "embed_matching_loss": (embed_matching_loss, rows),
        "margin_mse_loss": (margin_mse_loss, rows),
        "score_distillation_loss": (score_distillation_loss, rows),
    }
    return calls[name]


def total(result: Any) -> Tensor:
    terms = list(result.values()) if isinstance(result, dict) else [result.sum()]
    return torch.stack(terms).sum()


@every_loss
def test_mixed_precision_takes_the_wider(name: str) -> None:
    call, x = call_and_input(name)
    y = x.flip(0)
    expected = total(call(x.double(), y.double()))
    for left, right in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        found = total(call(x.to(left), y.to(right)))
        assert found.dtype == torch.float64
        assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert total(call(x.half(), y)).dtype == torch.float32


@every_loss
def test_wrong_arguments_are_a_sentence(name: str) -> None:
    call, x = call_and_input(name)
    wrong = [x.numpy(), x.tolist(), None, x.long(), x > 0, x.to(torch.complex64), x[:, :0]]
    for each in (*wrong, torch.zeros(()), np.ones(3)):
        for arguments in ((each, x), (x, each)):
            with pytest.raises(UserError) as error:
                call(*arguments)
            assert "\n" not in str(error.value)
            assert len(str(error.value).split()) > 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: residual_kd_loss(x, [], x), "one assistant at least"),
        (lambda x: residual_kd_loss(x, x, x), "takes a list of tensors"),
        (lambda x: residual_kd_loss(x, [x[:, :3]], x), "an assistant's feature has shape"),
        (lambda x: residual_kd_loss(x, [x[:1]], x), "an assistant's feature has shape"),
        (lambda x: srd_loss(x, x, torch.full((6,), 9), distance="ce"), "the label 9 is none"),
        (lambda x: srd_loss(x, x, torch.zeros(3).long(), distance="ce"), "labels"),
        (lambda x: srd_loss(x[:0], x[:0], distance="dist"), "logits"),
        (lambda x: ofa_loss(x, x, torch.full((6,), 0.5)), "of int64"),
        (lambda x: rcka_feature_loss(x[0], x[0], gram="normalized"), "features"),
        (lambda x: kd_loss(x, x, temperature=float("inf")), "must be finite"),
        (lambda x: kd_loss(x, x, temperature=float("nan")), "must be positive"),
        (lambda x: dist_loss(x, x, gamma=-1.0), "the weights of DIST are finite numbers from 0"),
        (lambda x: rcka_loss(x, x, inter_weight=float("inf")), "the weights of RCKA"),
        (lambda _: tutelage.methods.DKD(ramp=(0.0,)), "ramp is"),
        (lambda _: tutelage.methods.KD(weight=float("nan")), "the weights of KD"),
        (lambda _: afd_loss([MAPS], [MAPS], torch.ones(5, 1, 1)), "one number per item and pair"),
        (lambda _: afd_loss([MAPS], [MAPS], torch.ones(2, 1, 2)), "one number per item and pair"),
        (lambda _: rtk_loss([MAPS], [MAPS], torch.ones(2, 2, 1)), "one number per item and pair"),
        (lambda _: afd_loss(MAPS, [MAPS], torch.ones(2, 1, 1)), "takes a list of tensors"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(torch.randn(6, 5))


def test_a_teacher_of_nan_has_no_class() -> None:
    student = torch.randn(4, 3)
    assert kd_hard_loss(student, torch.full((4, 3), torch.nan)).isnan()
    masked = torch.randn(4, 3)
    masked[:, 0] = -torch.inf
    assert kd_hard_loss(student, masked).isfinite()


def test_no_error_has_no_share_that_is_removed() -> None:
    one, zero = torch.ones(1, 2), torch.zeros(1, 2)
    assert error_removed(one, [zero], one) == 0.0
    assert error_removed(one, [one], one) == -torch.inf

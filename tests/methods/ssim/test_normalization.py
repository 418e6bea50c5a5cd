"""How maps are brought to [0, 1], and what of that is warned about or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.harness import make_step, setup_method, tensor
from tests.methods.ssim.vectors import OFFERED, WITH_GRADIENT, loss_options, maps, normalize_of
from tutelage.errors import UserError
from tutelage.methods.ssim import SSIM, ssim_loss
from tutelage.methods.ssim.normalization import normalize_maps


def set_up(student: Tensor, teacher: Tensor, **options: Any) -> SSIM:
    step = make_step(student_features={"a": student}, teacher_features={"b": teacher})
    return setup_method(SSIM({"a": "b"}, **options), step)


@pytest.mark.parametrize("name", OFFERED)
def test_maps_are_those_of_the_equations(name: str) -> None:
    student, teacher = maps(name)
    s, t = normalize_maps(student, teacher, normalize=normalize_of(name))
    assert torch.allclose(s, tensor("ssim_kd", f"{name}_student_norm"), rtol=0, atol=1e-14)
    assert torch.allclose(t, tensor("ssim_kd", f"{name}_teacher_norm"), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", WITH_GRADIENT)
@pytest.mark.parametrize("detach_range", [False, True])
def test_gradients_are_those_of_kornia(name: str, detach_range: bool) -> None:
    if name == "case4" and detach_range:
        return  # the teacher's extrema have no gradient to the student
    student, teacher = maps(name)
    student.requires_grad_()
    ssim_loss(student, teacher, detach_range=detach_range, **loss_options(name)).backward()
    suffix = "_minmax_detached" if detach_range else ""
    expected = tensor("ssim_kd", f"{name}_grad_student_raw{suffix}")
    assert torch.allclose(student.grad, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_the_floor_is_inactive_in_every_vector(name: str) -> None:
    student, teacher = maps(name)
    free = ssim_loss(student, teacher, **loss_options(name))
    floored = ssim_loss(student, teacher, min_range=0.1, **loss_options(name))
    assert torch.equal(free, floored)


def test_the_gradient_of_a_narrow_channel_is_bounded_on_request() -> None:
    student, teacher = torch.randn(2, 2, 8, 16, 16)
    student[:, 0] *= 1e-4

    def largest_gradients(min_range: float) -> Tensor:
        features = student.clone().requires_grad_()
        loss = ssim_loss(features, teacher, min_range=min_range)
        return torch.autograd.grad(loss, features)[0].abs().amax((0, 2, 3))

    free, bounded = largest_gradients(0.0), largest_gradients(0.1)
    assert free[0] > 1e3 * free[1:].max()
    assert bounded[0] < 20 * bounded[1:].max()
    assert torch.equal(free[1:], bounded[1:])  # a floor of 0.1 leaves ordinary channels as they are


def test_a_narrow_student_channel_is_warned_about_before_training() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    student[:, 1] = 0
    with pytest.warns(
        UserWarning, match="SSIM of a → b: 2 of 6 channels of the student's maps vary less"
    ):
        set_up(student, teacher)
    set_up(student, teacher, min_range=0.1)


def test_maps_without_normalization_need_their_range_and_no_negative_values() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    message = r"without normalization SSIM needs L, .* give max_val"
    with pytest.raises(UserError, match=message):
        SSIM({"a": "b"}, normalize="none")
    with pytest.raises(UserError, match=message):
        ssim_loss(student, teacher, normalize="none")
    with pytest.warns(UserWarning, match="negative values reward maps that differ"):
        set_up(student, teacher, normalize="none", max_val=6.0)
    set_up(student.abs(), teacher.abs(), normalize="none", max_val=3.0)


def test_a_level_of_one_position_is_named() -> None:
    student, teacher = torch.randn(2, 2, 3, 1, 1)
    with pytest.raises(
        UserError,
        match="SSIM of a → b: a 1×1 map carries no structure under normalize='channel'; drop",
    ):
        set_up(student, teacher)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 3, 12, 12), torch.zeros(3, 3, 12, 12), "the same images and channels"),
        (
            torch.zeros(2, 3, 12, 12),
            torch.zeros(2, 4, 12, 12),
            "set adapter='auto' for other widths",
        ),
        (torch.zeros(2, 3, 12), torch.zeros(2, 3, 12), "tap convolutional maps"),
        (torch.zeros(0, 3, 12, 12), torch.zeros(0, 3, 12, 12), "tap convolutional maps"),
        (torch.zeros(2, 3, 12, 12, dtype=torch.int32), torch.zeros(2, 3, 12, 12), "floating-point"),
    ],
)
def test_maps_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ssim_loss(student, teacher)
    with pytest.raises(UserError, match=f"SSIM of a → b: .*{message}"):
        set_up(student, teacher, adapter="never")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "batch"}, r"normalize is .*, got 'batch'"),
        ({"max_val": 0.0}, r"max_val must be positive and min_range within"),
        ({"min_range": 2.0}, r"max_val must be positive and min_range within"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    student, teacher = torch.rand(2, 1, 2, 12, 12)
    with pytest.raises(UserError, match=message):
        SSIM({"a": "b"}, **options)
    with pytest.raises(UserError, match=message):
        ssim_loss(student, teacher, **options)

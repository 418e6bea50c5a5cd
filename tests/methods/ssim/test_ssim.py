"""Structural distillation: its loss, the traps of its public copies, and the method."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.harness import LAYER_PAIRS, make_step, setup_method, tensor
from tests.methods.ssim.vectors import CASES, OFFERED, loss_options, maps
from tutelage.core import CombinedMethod, Method, Step
from tutelage.errors import UserError
from tutelage.methods import FitNet
from tutelage.methods.ssim import SSIM, ssim_loss

EXAMPLES: dict[str, Callable[[], Method]] = {"ssim": lambda: SSIM(LAYER_PAIRS)}

EXPONENTS = [(a, b, g) for a in (0, 1) for b in (0, 1) for g in (0, 1) if a + b + g]


def step_of(student: Tensor, teacher: Tensor) -> Step:
    return make_step(student_features={"a": student}, teacher_features={"b": teacher})


def set_up(student: Tensor, teacher: Tensor, **options: Any) -> tuple[SSIM, Step]:
    step = step_of(student, teacher)
    return setup_method(SSIM({"a": "b"}, **options), step), step


# ---- the vectors ----


@pytest.mark.parametrize("name", OFFERED)
def test_losses_are_those_of_the_equations(name: str) -> None:
    expected = tensor("ssim_kd", f"{name}_np_loss_a1_b1_g1").item()
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        loss = ssim_loss(*maps(name, dtype), **loss_options(name))
        assert loss.item() == pytest.approx(expected, abs=error)
    if "kornia_loss" in CASES[name]:
        assert expected == pytest.approx(tensor("ssim_kd", f"{name}_kornia_loss").item(), abs=1e-9)


@pytest.mark.parametrize("exponents", EXPONENTS)
@pytest.mark.parametrize("name", ["case0", "case1", "case7"])
def test_each_factor_can_be_switched(name: str, exponents: tuple[int, int, int]) -> None:
    luminance, contrast, structure = exponents
    expected = tensor("ssim_kd", f"{name}_np_loss_a{luminance}_b{contrast}_g{structure}")
    # With one of the two, standard deviations are needed, whose root is √(v + 1e-12).
    error = 1e-6 if contrast != structure else 1e-12
    loss = ssim_loss(*maps(name), exponents=exponents, **loss_options(name))
    assert loss.item() == pytest.approx(expected.item(), abs=error)


# ---- properties ----


def test_it_is_symmetric_bounded_and_blind_to_each_channels_scale_and_shift() -> None:
    student, teacher = torch.randn(2, 2, 4, 16, 20, dtype=torch.float64)
    loss = ssim_loss(student, teacher)
    assert torch.isclose(loss, ssim_loss(teacher, student))
    assert 0 < loss < 1
    scale, shift = torch.rand(2, 2, 4, 1, 1, dtype=torch.float64) + 0.5
    assert torch.isclose(loss, ssim_loss(scale * student + shift, teacher), rtol=0, atol=1e-6)
    assert ssim_loss(teacher, teacher) < 1e-15


@pytest.mark.parametrize("normalize", ["channel", "tensor", "teacher", "none"])
@pytest.mark.parametrize("exponents", [(1, 1, 1), (0, 1, 2), (0.5, 0, 1), (0, 0, 1)])
def test_gradients_are_right(normalize: str, exponents: tuple[float, float, float]) -> None:
    student, teacher = torch.randn(2, 1, 2, 5, 6, dtype=torch.float64)

    def loss(features: Tensor) -> Tensor:
        return ssim_loss(
            features,
            teacher,
            window_size=5,
            border="renorm",
            exponents=exponents,
            normalize=normalize,
            max_val=4.0 if normalize == "none" else None,
        )

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


def test_equal_shares_of_a_batch_give_the_joined_batchs_loss() -> None:
    student, teacher = torch.randn(2, 4, 3, 12, 12)
    first = ssim_loss(student[:2], teacher[:2])
    second = ssim_loss(student[2:], teacher[2:])
    assert torch.isclose(ssim_loss(student, teacher), (first + second) / 2)


# ---- traps ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_around_it_changes_nothing(dtype: torch.dtype) -> None:
    base = torch.rand(2, 3, 16, 16)
    student = (1 + 0.02 * base).to(dtype)
    teacher = (1 + 0.02 * (base + 0.3 * torch.rand(2, 3, 16, 16))).to(dtype)
    options: dict[str, Any] = {"normalize": "none", "max_val": 1.0}
    exact = ssim_loss(student.double(), teacher.double(), **options).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ssim_loss(student.requires_grad_(), teacher, **options)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, abs=1e-5)
    assert 0 <= loss < 0.01
    loss.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("exponents", [(1, 1, 1), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_channels_of_either_side_are_finite(
    exponents: tuple[float, float, float], constant: float
) -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    teacher[:, 0] = constant
    student[:, 1] = constant
    loss = ssim_loss(student.requires_grad_(), teacher, exponents=exponents)
    loss.backward()
    assert 0 <= loss <= 1
    assert student.grad.isfinite().all()


def test_channels_that_are_dead_in_the_teacher_can_be_left_out() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    teacher[:, 1] = 5.0
    without = ssim_loss(student[:, ::2], teacher[:, ::2])
    assert ssim_loss(student, teacher) > without
    assert torch.isclose(ssim_loss(student, teacher, ignore_dead=True), without)
    method, step = set_up(student, teacher, ignore_dead=True, weight=1.0)
    assert torch.isclose(method(step)["ssim/a"], without)
    assert ssim_loss(student, torch.zeros_like(teacher), ignore_dead=True) == 0


def test_a_small_level_takes_the_renormalized_border_with_one_warning() -> None:
    student, teacher = torch.randn(2, 2, 3, 4, 4)
    with pytest.warns(
        UserWarning, match="SSIM of a → b: a map of 4×4 is too small for a reflected border"
    ) as record:
        method, step = set_up(student, teacher, weight=1.0)
    assert len(record) == 1
    loss = method(step)["ssim/a"]  # silent from here on, and never skipped
    assert torch.equal(loss, ssim_loss(student, teacher, border="renorm"))
    with pytest.warns(UserWarning, match="becomes border='renorm'"):
        assert torch.equal(ssim_loss(student, teacher), loss)
    message = r"a map of 4×4 is too small for a window of 11 under border='valid'"
    with pytest.raises(UserError, match=message):
        ssim_loss(student, teacher, border="valid")
    with pytest.raises(UserError, match=f"SSIM of a → b: {message}"):
        set_up(student, teacher, border="valid")


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (5, 6), (7, 11), (6, 40), (161, 3)])
def test_maps_of_any_size_are_finite(size: tuple[int, int]) -> None:
    student, teacher = torch.randn(2, 2, 3, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = ssim_loss(student.requires_grad_(), teacher)
    loss.backward()
    assert 0 <= loss <= 1
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("side", [0, 1])
def test_nan_is_refused_before_training_and_never_hidden(side: int) -> None:
    sides = torch.randn(2, 2, 3, 12, 12)
    sides[side, 0, 0, 0, 0] = float("nan")
    assert ssim_loss(*sides).isnan()
    assert ssim_loss(*sides, ignore_dead=True).isnan()
    with pytest.raises(UserError, match=r"feature '[ab]' holds NaN or infinity"):
        set_up(*sides)


# ---- the method ----


def test_maps_of_another_size_are_resized_on_request_only() -> None:
    student, teacher = torch.randn(2, 3, 14, 14), torch.randn(2, 3, 16, 20)
    with pytest.raises(
        UserError, match=r"maps of one size, got \(2, 3, 14, 14\).*feed the teacher the student's"
    ):
        set_up(student, teacher)
    method, step = set_up(student, teacher, resize="student", weight=1.0)
    resized = nn.functional.interpolate(student, (16, 20), mode="bilinear", align_corners=False)
    assert torch.equal(method(step)["ssim/a"], ssim_loss(resized, teacher))


def test_a_map_with_its_channels_last_is_refused() -> None:
    with pytest.raises(UserError, match="channels last"):
        set_up(torch.rand(2, 3, 12, 12), torch.rand(2, 12, 12, 24))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": True}, r"adapter is 'auto', 'always' or 'never', got True"),
        ({"resize": "teacher"}, r"resize is .*, got 'teacher'"),
    ],
)
def test_settings_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SSIM({"a": "b"}, **options)
    with pytest.raises(UserError, match="SSIM needs at least one pair of layers"):
        SSIM({}, adapter="auto")


def test_adapters_are_built_once_never_at_zero_and_trained() -> None:
    method, step = set_up(torch.randn(2, 3, 12, 12), torch.randn(2, 5, 12, 12))
    (layer,) = method.adapters
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.std() > 0.1
    loss = method(step)["ssim/a"]
    assert torch.equal(loss, method(step)["ssim/a"])
    loss.backward()
    assert layer.weight.grad.abs().max() < 10
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    assert method(step)["ssim/a"] < loss


def test_an_adapter_for_equal_widths_is_built_on_request_and_starts_as_the_identity() -> None:
    maps_ = torch.randn(2, 2, 3, 12, 12)
    assert not list(set_up(*maps_)[0].parameters())
    method, step = set_up(*maps_, adapter="always")
    assert torch.isclose(method(step)["ssim/a"], 2 * ssim_loss(*maps_))
    assert [tuple(p.shape) for p in method.parameters()] == [(3, 3, 1, 1), (3,)]


def test_an_adapter_has_the_precision_of_a_float64_student() -> None:
    student = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    method, step = set_up(student, torch.randn(2, 5, 12, 12, dtype=torch.float64))
    assert method.adapters[0].weight.dtype == torch.float64
    assert method(step)["ssim/a"].dtype == torch.float64


def test_levels_are_summed() -> None:
    levels = {f"p{i}": torch.randn(2, 2, 3, 12 + i, 12) for i in range(3)}
    step = make_step(
        student_features={name: level[0] for name, level in levels.items()},
        teacher_features={name: level[1] for name, level in levels.items()},
    )
    terms = setup_method(SSIM({name: name for name in levels}, weight=4.0), step)(step)
    assert list(terms) == [f"ssim/{name}" for name in levels]
    for name, (student, teacher) in levels.items():
        assert torch.isclose(terms[f"ssim/{name}"], 4.0 * ssim_loss(student, teacher))


def test_it_composes_with_fitnet() -> None:
    both = CombinedMethod([SSIM({"a": "b"}), FitNet({"a": "b"})])
    step = step_of(torch.randn(2, 3, 12, 12), torch.randn(2, 5, 12, 12))
    terms = setup_method(both, step)(step)
    assert list(terms) == ["ssim/a", "fitnet/a"]
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in both.parameters())

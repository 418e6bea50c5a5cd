"""Structural distillation against kornia's numbers and an independent derivation, and the traps of its copies."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from tests.vectors import FOLDER, tensor
from tutelage import SSIM, Mimic, Output, Step, Together, UserError
from tutelage.methods import Ranges, Structure, ssim_loss, windows
from tutelage.methods.windows import Windows

CASES: dict[str, dict[str, Any]] = json.loads((FOLDER / "ssim_kd.json").read_text())["cases"]
OFFERED = [name for name, case in CASES.items() if case["padding"] != "replicate"]
WITH_GRADIENT = ["case0", "case1", "case3", "case4", "case6", "case7"]
EXPONENTS = [(a, b, g) for a in (0, 1) for b in (0, 1) for g in (0, 1) if a + b + g]


def settings(name: str, **changes: Any) -> tuple[Structure, Ranges]:
    case = CASES[name]
    border = {"same": "reflect"}.get(case["padding"], case["padding"])
    norm = "teacher" if case.get("norm_ref") == "teacher" else case["norm"]
    return Structure(case["window"], case["sigma"], border, **changes), Ranges(norm, case["L"])


def maps(name: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return tensor("ssim_kd", f"{name}_student_raw", dtype), tensor("ssim_kd", f"{name}_teacher_raw", dtype)


def step(student: Tensor, teacher: Tensor) -> Step:
    return Step(Output(None, {"a": student}), Output(None, {"b": teacher}), None, lambda out: out)


def set_up(student: Tensor, teacher: Tensor, **options: Any) -> tuple[SSIM, Step]:
    method, example = SSIM({"a": "b"}, **options), step(student, teacher)
    method.setup(example, None)
    return method, example


def blurred(x: Tensor, window: int, sigma: float, border: str) -> Tensor:
    return Windows(x, window, sigma, border).mean(x)


# ---- the vectors ----


@pytest.mark.parametrize("name", OFFERED)
def test_maps_and_losses_are_those_of_the_equations(name: str) -> None:
    structure, ranges = settings(name)
    s, t = ranges.applied(*maps(name))
    for side, whose in ((s, "student"), (t, "teacher")):
        assert torch.allclose(side, tensor("ssim_kd", f"{name}_{whose}_norm"), rtol=0, atol=1e-14)
    found = structure.similarity(s, t, CASES[name]["L"])
    assert torch.allclose(found, tensor("ssim_kd", f"{name}_np_ssim_map"), rtol=0, atol=1e-12)
    expected = tensor("ssim_kd", f"{name}_np_loss_a1_b1_g1").item()
    assert ssim_loss(*maps(name), structure, ranges).item() == pytest.approx(expected, abs=1e-12)
    assert ssim_loss(*maps(name, torch.float32), structure, ranges).item() == pytest.approx(expected, abs=1e-5)
    if "kornia_loss" in CASES[name]:
        assert torch.allclose(found, tensor("ssim_kd", f"{name}_kornia_ssim_map"), rtol=0, atol=1e-9)
        assert expected == pytest.approx(tensor("ssim_kd", f"{name}_kornia_loss").item(), abs=1e-9)


@pytest.mark.parametrize("name", WITH_GRADIENT)
@pytest.mark.parametrize("detach", [False, True])
def test_gradients_are_those_of_kornia(name: str, detach: bool) -> None:
    if name == "case4" and detach:
        return  # the teacher's extrema have no gradient to the student
    structure, ranges = settings(name)
    ranges = Ranges(ranges.norm, ranges.span, detach)
    student, teacher = maps(name)
    ssim_loss(student.requires_grad_(), teacher, structure, ranges).backward()
    expected = tensor("ssim_kd", f"{name}_grad_student_raw" + ("_minmax_detached" if detach else ""))
    assert torch.allclose(student.grad, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("exponents", EXPONENTS)
@pytest.mark.parametrize("name", ["case0", "case1", "case7"])
def test_each_factor_can_be_switched(name: str, exponents: tuple[int, int, int]) -> None:
    structure, ranges = settings(name, exponents=exponents)
    key = "{}_np_loss_a{}_b{}_g{}".format(name, *exponents)
    apart = exponents[1] != exponents[2]  # then standard deviations are needed, whose root is √(v + 1e-12)
    assert ssim_loss(*maps(name), structure, ranges).item() == pytest.approx(
        tensor("ssim_kd", key).item(), abs=1e-6 if apart else 1e-12
    )


@pytest.mark.parametrize("name", ["case0", "case1", "case3", "case4", "case6", "case7"])
@pytest.mark.parametrize("factor", ["luminance", "contrast", "structure"])
def test_each_factors_map_is_that_of_the_equations(name: str, factor: str) -> None:
    exponents = tuple(float(factor == each) for each in ("luminance", "contrast", "structure"))
    structure, ranges = settings(name, exponents=exponents)
    found = structure.similarity(*ranges.applied(*maps(name)), CASES[name]["L"])
    error = 1e-12 if factor == "luminance" else 1e-6
    assert torch.allclose(found, tensor("ssim_kd", f"{name}_np_{factor}"), rtol=0, atol=error)


@pytest.mark.parametrize("name", ["case0", "case1", "case4", "case6", "case7"])
def test_torchmetrics_agrees(name: str) -> None:
    structure, ranges = settings(name)
    s, t = ranges.applied(*maps(name))
    other = structural_similarity_index_measure(s, t, sigma=1.5, data_range=1.0)
    assert structure.similarity(s, t).mean().item() == pytest.approx(other.item(), abs=1e-10)
    expected = tensor("ssim_kd", f"{name}_xcheck_torchmetrics_ssim_full_map_mean").item()
    assert other.item() == pytest.approx(expected, abs=1e-9)
    valid = Structure(border="valid").similarity(s, t).mean().item()
    assert valid == pytest.approx(tensor("ssim_kd", f"{name}_xcheck_skimage_gaussian_mean").item(), abs=1e-12)


# ---- properties ----


def test_it_is_symmetric_bounded_and_blind_to_each_channels_scale_and_shift() -> None:
    student, teacher = torch.randn(2, 2, 4, 16, 20, dtype=torch.float64)
    loss = ssim_loss(student, teacher)
    assert torch.isclose(loss, ssim_loss(teacher, student))
    assert 0 < loss < 1
    scale, shift = torch.rand(2, 2, 4, 1, 1, dtype=torch.float64) + 0.5
    assert torch.isclose(loss, ssim_loss(scale * student + shift, teacher), rtol=0, atol=1e-6)
    assert ssim_loss(teacher, teacher) < 1e-15


@pytest.mark.parametrize("border", windows.BORDERS)
def test_long_sides_are_convolved_to_the_same_numbers(border: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 14, 19, dtype=torch.float64)
    banded = blurred(x, 7, 1.5, border)
    monkeypatch.setattr(windows, "LONGEST", 1)
    assert torch.allclose(blurred(x, 7, 1.5, border), banded, rtol=0, atol=1e-14)


def test_borders_differ_at_the_border_only() -> None:
    x = torch.randn(1, 1, 20, 24, dtype=torch.float64)
    reflect, valid, renorm = (blurred(x, 7, 1.5, border) for border in windows.BORDERS)
    inside = (..., slice(3, -3), slice(3, -3))
    assert torch.allclose(reflect[inside], valid, rtol=0, atol=1e-14)
    assert torch.allclose(renorm[inside], valid, rtol=0, atol=1e-14)
    assert not torch.allclose(reflect, renorm)


@pytest.mark.parametrize("norm", ["channel", "tensor", "teacher", "none"])
@pytest.mark.parametrize("exponents", [(1, 1, 1), (0, 1, 2), (0.5, 0, 1), (0, 0, 1)])
def test_gradients_are_right(norm: str, exponents: tuple[float, float, float]) -> None:
    student, teacher = torch.randn(2, 1, 2, 5, 6, dtype=torch.float64)
    ranges = Ranges(norm, 4.0 if norm == "none" else None)

    def loss(features: Tensor) -> Tensor:
        return ssim_loss(features, teacher, Structure(5, border="renorm", exponents=exponents), ranges)

    assert torch.autograd.gradcheck(loss, student.requires_grad_())


def test_other_exponents_keep_the_sign_of_a_negative_structure() -> None:
    student = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    found = Structure(exponents=(0, 0, 0.5)).similarity(*Ranges().applied(student, -student))
    assert found.mean() < -0.5
    assert found.isfinite().all()


def test_only_masked_positions_count() -> None:
    student, teacher = torch.rand(2, 2, 3, 16, 16, dtype=torch.float64)
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, 2:9, 4:] = 1
    s, t = Ranges().applied(student, teacher)
    for border, part in (("reflect", (0, slice(None), slice(2, 9), slice(4, None))),
                         ("valid", (0, slice(None), slice(0, 4), slice(0, None)))):  # fmt: skip
        structure = Structure(border=border)
        expected = (0.5 - 0.5 * structure.similarity(s, t)[part]).clamp(0, 1).mean()
        assert torch.isclose(ssim_loss(student, teacher, structure, mask=mask), expected)
    assert ssim_loss(student, teacher, mask=torch.zeros_like(mask)) == 0


# ---- traps ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_around_it_changes_nothing(dtype: torch.dtype) -> None:
    base = torch.rand(2, 3, 16, 16)
    student, teacher = ((1 + 0.02 * x).to(dtype) for x in (base, base + 0.3 * torch.rand(2, 3, 16, 16)))
    ranges = Ranges("none", 1.0)
    exact = ssim_loss(student.double(), teacher.double(), ranges=ranges).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ssim_loss(student.requires_grad_(), teacher, ranges=ranges)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, abs=1e-5)
    assert 0 <= loss < 0.01
    loss.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("exponents", [(1, 1, 1), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("flat", [0.0, 7.0])
def test_constant_channels_of_either_side_are_finite(exponents: tuple[float, float, float], flat: float) -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    teacher[:, 0], student[:, 1] = flat, flat
    loss = ssim_loss(student.requires_grad_(), teacher, Structure(exponents=exponents))
    loss.backward()
    assert 0 <= loss <= 1
    assert student.grad.isfinite().all()


def test_channels_that_are_dead_in_the_teacher_can_be_left_out() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    teacher[:, 1] = 5.0
    without = ssim_loss(student[:, ::2], teacher[:, ::2])
    assert ssim_loss(student, teacher) > without
    assert torch.isclose(ssim_loss(student, teacher, ignore_dead=True), without)
    assert torch.isclose(
        set_up(student, teacher, ignore_dead=True, weight=1.0)[0](step(student, teacher))["ssim.a"], without
    )
    assert ssim_loss(student, torch.zeros_like(teacher), ignore_dead=True) == 0


def test_the_gradient_of_a_narrow_channel_is_bounded_on_request() -> None:
    student, teacher = torch.randn(2, 2, 8, 16, 16)
    student[:, 0] *= 1e-4

    def gradient(ranges: Ranges) -> Tensor:
        features = student.clone().requires_grad_()
        return torch.autograd.grad(ssim_loss(features, teacher, ranges=ranges), features)[0].abs().amax((0, 2, 3))

    free, bounded = gradient(Ranges()), gradient(Ranges(min_range=0.1))
    assert free[0] > 1e3 * free[1:].max()
    assert bounded[0] < 20 * bounded[1:].max()
    assert torch.equal(free[1:], bounded[1:])  # a floor of 0.1 leaves ordinary channels as they are


@pytest.mark.parametrize("name", WITH_GRADIENT)
def test_the_floor_is_inactive_in_every_vector(name: str) -> None:
    structure, ranges = settings(name)
    floored = Ranges(ranges.norm, ranges.span, min_range=0.1)
    assert torch.equal(ssim_loss(*maps(name), structure, ranges), ssim_loss(*maps(name), structure, floored))


def test_a_narrow_student_channel_is_warned_about_before_training() -> None:
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    student[:, 1] = 0
    with pytest.warns(UserWarning, match="SSIM of a → b: 2 of 6 channels of the student's maps vary less"):
        set_up(student, teacher)
    set_up(student, teacher, ranges=Ranges(min_range=0.1))


def test_maps_without_normalisation_need_their_range_and_no_negative_values() -> None:
    with pytest.raises(UserError, match=r"without normalisation SSIM needs L, .* give span"):
        Ranges("none")
    student, teacher = torch.randn(2, 2, 3, 16, 16)
    with pytest.warns(UserWarning, match="negative values reward maps that differ"):
        set_up(student, teacher, ranges=Ranges("none", 6.0))
    set_up(student.abs(), teacher.abs(), ranges=Ranges("none", 3.0))


def test_a_level_of_one_position_is_named() -> None:
    student, teacher = torch.randn(2, 2, 3, 1, 1)
    with pytest.raises(UserError, match="SSIM of a → b: a 1×1 map carries no structure under norm='channel'; drop"):
        set_up(student, teacher)


def test_a_small_level_takes_the_renormalised_border_with_one_warning() -> None:
    student, teacher = torch.randn(2, 2, 3, 4, 4)
    with pytest.warns(UserWarning, match="SSIM of a → b: a map of 4×4 is too small for a reflected border") as seen:
        method, example = set_up(student, teacher, weight=1.0)
    assert len(seen) == 1
    loss = method(example)["ssim.a"]  # silent from here on, and never skipped
    assert torch.equal(loss, ssim_loss(student, teacher, Structure(border="renorm")))
    with pytest.warns(UserWarning, match="becomes border='renorm'"):
        assert torch.equal(ssim_loss(student, teacher), loss)
    with pytest.raises(UserError, match=r"a map of 4×4 is too small for a window of 11 under border='valid'"):
        ssim_loss(student, teacher, Structure(border="valid"))


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (5, 6), (7, 11), (6, 40), (161, 3)])
def test_maps_of_any_size_are_finite(size: tuple[int, int]) -> None:
    student, teacher = torch.randn(2, 2, 3, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = ssim_loss(student.requires_grad_(), teacher)
    loss.backward()
    assert 0 <= loss <= 1
    assert student.grad.isfinite().all()


def test_maps_of_another_size_are_resized_on_request_only() -> None:
    student, teacher = torch.randn(2, 3, 14, 14), torch.randn(2, 3, 16, 20)
    with pytest.raises(UserError, match=r"maps of one size, got \(2, 3, 14, 14\).*feed the teacher the student's"):
        set_up(student, teacher)
    method, example = set_up(student, teacher, resize="student", weight=1.0)
    resized = nn.functional.interpolate(student, (16, 20), mode="bilinear", align_corners=False)
    assert torch.equal(method(example)["ssim.a"], ssim_loss(resized, teacher))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 3, 12, 12), torch.zeros(3, 3, 12, 12), "the same images and channels"),
        (torch.zeros(2, 3, 12, 12), torch.zeros(2, 4, 12, 12), "set adapter='auto' for other widths"),
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


def test_a_map_with_its_channels_last_is_refused() -> None:
    with pytest.raises(UserError, match="channels last"):
        set_up(torch.rand(2, 3, 12, 12), torch.rand(2, 12, 12, 24))


def test_settings_that_do_not_fit_are_named() -> None:
    for wrong in ({"window": 10}, {"window": 0}, {"sigma": 0.0}):
        with pytest.raises(UserError, match="SSIM needs an odd window and sigma > 0, got"):
            Structure(**wrong)
    with pytest.raises(UserError, match=r"border is one of .* got 'replicate'"):
        Structure(border="replicate")
    for exponents in ((0, 0, 0), (1, 1)):
        with pytest.raises(UserError, match="exponents are three"):
            Structure(exponents=exponents)
    with pytest.raises(UserError, match="norm is one of"):
        Ranges("batch")
    for wrong in ({"span": 0.0}, {"min_range": 2.0}):
        with pytest.raises(UserError, match="span is positive and min_range within"):
            Ranges(**wrong)
    for options in ({"adapter": True}, {"resize": "teacher"}, {"level_reduction": "max"}):
        with pytest.raises(UserError, match="SSIM needs pairs of taps, adapter in"):
            SSIM({"a": "b"}, **options)
    with pytest.raises(UserError, match="SSIM needs pairs of taps"):
        SSIM({})


@pytest.mark.parametrize("whose", [0, 1])
def test_nan_is_refused_before_training_and_never_hidden(whose: int) -> None:
    sides = torch.randn(2, 2, 3, 12, 12)
    sides[whose, 0, 0, 0, 0] = float("nan")
    assert ssim_loss(*sides).isnan()
    assert ssim_loss(*sides, ignore_dead=True).isnan()
    with pytest.raises(UserError, match=r"tap '[ab]' holds NaN or infinity"):
        set_up(*sides)


# ---- the method ----


def test_adapters_are_built_once_never_at_zero_and_trained() -> None:
    student, teacher = torch.randn(2, 3, 12, 12), torch.randn(2, 5, 12, 12)
    method, example = set_up(student, teacher)
    (layer,) = method.projections
    assert isinstance(layer, nn.Conv2d)
    assert layer.weight.std() > 0.1
    loss = method(example)["ssim.a"]
    assert torch.equal(loss, method(example)["ssim.a"])
    loss.backward()
    assert layer.weight.grad.abs().max() < 10
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    assert method(example)["ssim.a"] < loss
    same = torch.randn(2, 2, 3, 12, 12)
    assert not list(set_up(*same)[0].parameters())
    always, example = set_up(*same, adapter="always")
    assert torch.isclose(always(example)["ssim.a"], 2 * ssim_loss(*same))  # it starts as the identity
    assert [tuple(p.shape) for p in always.parameters()] == [(3, 3, 1, 1), (3,)]


def test_levels_are_summed_or_averaged() -> None:
    levels = {f"p{i}": torch.randn(2, 2, 3, 12 + i, 12) for i in range(3)}
    example = Step(*(Output(None, {k: v[i] for k, v in levels.items()}) for i in range(2)), None, lambda out: out)
    for reduction, share in (("sum", 1.0), ("mean", 1 / 3)):
        method = SSIM({name: name for name in levels}, weight=4.0, level_reduction=reduction)
        method.setup(example, None)
        terms = method(example)
        assert list(terms) == [f"ssim.{name}" for name in levels]
        for name, level in levels.items():
            assert torch.isclose(terms[f"ssim.{name}"], 4.0 * share * ssim_loss(*level))


def test_equal_shares_of_a_batch_give_the_joined_batchs_loss() -> None:
    student, teacher = torch.randn(2, 4, 3, 12, 12)
    halves = [ssim_loss(student[part], teacher[part]) for part in (slice(2), slice(2, 4))]
    assert torch.isclose(ssim_loss(student, teacher), sum(halves) / 2)


def test_it_composes_with_mimic() -> None:
    both = Together([SSIM({"a": "b"}), Mimic({"a": "b"})])
    example = step(torch.randn(2, 3, 12, 12), torch.randn(2, 5, 12, 12))
    both.setup(example, None)
    terms = both(example)
    assert list(terms) == ["ssim.a", "mimic.a"]
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for parameter in both.parameters())

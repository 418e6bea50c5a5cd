"""The index against kornia, an independent derivation and torchmetrics; and its windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from tests.methods.harness import tensor
from tests.methods.ssim.vectors import CASES, OFFERED, index_options, normalized
from tutelage.errors import UserError
from tutelage.methods.ssim import SSIM, ssim_loss, window
from tutelage.methods.ssim.index import ssim_index
from tutelage.methods.ssim.normalization import normalize_maps
from tutelage.methods.ssim.window import GaussianWindow

BORDERS = ["reflect", "valid", "renorm"]
FACTORS = {"luminance": (1.0, 0.0, 0.0), "contrast": (0.0, 1.0, 0.0), "structure": (0.0, 0.0, 1.0)}


def blurred(x: Tensor, border: str) -> Tensor:
    return GaussianWindow(x, 7, 1.5, border).mean(x)


# ---- the vectors ----


@pytest.mark.parametrize("name", OFFERED)
def test_maps_are_those_of_the_equations(name: str) -> None:
    s, t = normalized(name)
    similarity = ssim_index(s, t, max_val=CASES[name]["L"], **index_options(name))
    expected = tensor("ssim_kd", f"{name}_np_ssim_map")
    assert torch.allclose(similarity, expected, rtol=0, atol=1e-12)
    if "kornia_loss" in CASES[name]:
        expected = tensor("ssim_kd", f"{name}_kornia_ssim_map")
        assert torch.allclose(similarity, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["case0", "case1", "case3", "case4", "case6", "case7"])
@pytest.mark.parametrize("factor", FACTORS)
def test_each_factors_map_is_that_of_the_equations(name: str, factor: str) -> None:
    s, t = normalized(name)
    values = ssim_index(
        s, t, max_val=CASES[name]["L"], exponents=FACTORS[factor], **index_options(name)
    )
    expected = tensor("ssim_kd", f"{name}_np_{factor}")
    error = 1e-12 if factor == "luminance" else 1e-6
    assert torch.allclose(values, expected, rtol=0, atol=error)


@pytest.mark.parametrize("name", ["case0", "case1", "case4", "case6", "case7"])
def test_torchmetrics_agrees(name: str) -> None:
    s, t = normalized(name)
    reference = structural_similarity_index_measure(s, t, sigma=1.5, data_range=1.0)
    mean = ssim_index(s, t, **index_options(name)).mean()
    assert mean.item() == pytest.approx(reference.item(), abs=1e-10)
    expected = tensor("ssim_kd", f"{name}_xcheck_torchmetrics_ssim_full_map_mean").item()
    assert reference.item() == pytest.approx(expected, abs=1e-9)
    valid = ssim_index(s, t, border="valid").mean().item()
    expected = tensor("ssim_kd", f"{name}_xcheck_skimage_gaussian_mean").item()
    assert valid == pytest.approx(expected, abs=1e-12)


# ---- windows ----


@pytest.mark.parametrize("border", BORDERS)
def test_long_sides_are_blurred_in_blocks_to_the_same_numbers(
    border: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 3, 14, 19, dtype=torch.float64, requires_grad=True)
    whole = blurred(x, border)
    gradient = torch.autograd.grad(whole.square().sum(), x)[0]
    for rows in (1, 4, 5):
        monkeypatch.setattr(window, "BLOCK", rows)
        blocked = blurred(x, border)
        assert torch.allclose(blocked, whole, rtol=0, atol=1e-14)
        found = torch.autograd.grad(blocked.square().sum(), x)[0]
        assert torch.allclose(found, gradient, rtol=0, atol=1e-13)
    assert torch.autograd.gradgradcheck(lambda y: blurred(y, border), x[:1, :1])


def test_borders_differ_at_the_border_only() -> None:
    x = torch.randn(1, 1, 20, 24, dtype=torch.float64)
    reflect, valid, renorm = (blurred(x, border) for border in BORDERS)
    inside = (..., slice(3, -3), slice(3, -3))
    assert torch.allclose(reflect[inside], valid, rtol=0, atol=1e-14)
    assert torch.allclose(renorm[inside], valid, rtol=0, atol=1e-14)
    assert not torch.allclose(reflect, renorm)


# ---- exponents, small maps, options ----


def test_other_exponents_keep_the_sign_of_a_negative_structure() -> None:
    student = torch.randn(1, 1, 12, 12, dtype=torch.float64)
    s, t = normalize_maps(student, -student)
    values = ssim_index(s, t, exponents=(0, 0, 0.5))
    assert values.mean() < -0.5
    assert values.isfinite().all()


@pytest.mark.parametrize(("border", "side"), [("reflect", 5), ("valid", 10)])
def test_a_map_that_is_too_small_for_its_border_is_named(border: str, side: int) -> None:
    small, large = torch.rand(2, 1, 2, side, 20), torch.rand(2, 1, 2, side + 1, 20)
    with pytest.raises(
        UserError,
        match=rf"a map of {side}×20 is too small for a window of 11 under border='{border}'",
    ):
        ssim_index(*small, border=border)
    assert ssim_index(*large, border=border).isfinite().all()
    assert ssim_index(*small, border="renorm").isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 10}, r"SSIM needs an odd window_size and sigma > 0, got 10 and 1.5"),
        ({"window_size": 0}, r"SSIM needs an odd window_size and sigma > 0, got 0 and 1.5"),
        ({"sigma": 0.0}, r"SSIM needs an odd window_size and sigma > 0, got 11 and 0.0"),
        ({"border": "replicate"}, r"border is .* got 'replicate'"),
        ({"exponents": (0, 0, 0)}, r"exponents are three"),
        ({"exponents": (1, 1)}, r"exponents are three"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    student, teacher = torch.rand(2, 1, 2, 12, 12)
    for function in (ssim_index, ssim_loss):
        with pytest.raises(UserError, match=message):
            function(student, teacher, **options)
    with pytest.raises(UserError, match=message):
        SSIM({"a": "b"}, **options)

"""A layer's Gram matrix: centered where it must be, in range, outside autocast, detached."""

from __future__ import annotations

import pytest
import torch

from tests.similarity.conditioning import gram_rounding
from tests.similarity.formulas import cka_of, u_centering
from tutelage import UserError
from tutelage.similarity import gram_of
from tutelage.similarity._layer_gram import MAX_RHO, layer_grams


def rho(x: torch.Tensor) -> float:
    k = x.double() @ x.double().mT
    return float(k.diagonal().max() / (k.diagonal().mean() - k.mean()))


def test_ordinary_wide_features_keep_their_raw_gram_and_narrow_ones_are_centered() -> None:
    x = torch.randn(16, 9000).relu()
    assert rho(x) < MAX_RHO
    assert torch.equal(gram_of(x), x @ x.mT)
    x = x[:, :8192]
    assert torch.equal(gram_of(x), (x - x.mean(0)) @ (x - x.mean(0)).mT)


@pytest.mark.parametrize("offset", [5.0, 100.0, 1000.0])
def test_features_far_from_the_origin_are_centered(offset: float) -> None:
    x = torch.randn(16, 5000) + offset  # three chunks of columns
    assert rho(x) > MAX_RHO
    centered = x.double() - x.double().mean(0)
    assert torch.allclose(gram_of(x).double(), centered @ centered.mT, rtol=0, atol=0.02)
    u, expected = u_centering(gram_of(x).double()), u_centering(centered @ centered.mT)
    assert (u - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.0, 2.0, 4.0, 10.0, 100.0, 1000.0])
@pytest.mark.parametrize("width", [128, 9000])
def test_the_threshold_keeps_cka_within_millionths(offset: float, width: int) -> None:
    x, y = torch.randn(64, width), torch.randn(64, width)
    y[:, :100] += x[:, :100]
    x, y = x + offset, y + offset
    found = cka_of(gram_of(x).double(), gram_of(y).double(), "debiased")
    is_raw = width > 8192 and rho(x) <= MAX_RHO
    error = max(1e-6, gram_rounding(x, y)) if is_raw else 1e-6
    assert error < 1e-5
    x, y = x.double() - offset, y.double() - offset
    assert found.item() == pytest.approx(cka_of(x @ x.mT, y @ y.mT, "debiased").item(), abs=error)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-12, 1e-6, 1.0, 1e6, 1e12, 1e20, 1e30])
def test_the_scale_is_kept_even_beyond_float32(scale: float) -> None:
    x = torch.randn(8, 20)
    found = gram_of(x * scale)
    assert found.dtype == (torch.float64 if not 1e-13 < scale < 1e15 else torch.float32)
    expected = u_centering(x.double() @ x.double().mT) * scale**2
    assert torch.allclose(
        u_centering(found.double()) / scale**2, expected / scale**2, rtol=0, atol=1e-4
    )


def test_precision_and_shape() -> None:
    x = torch.randn(6, 3, 4, 5, requires_grad=True)
    found = gram_of(x)
    assert found.shape == (6, 6)
    assert not found.requires_grad
    assert gram_of(x.detach().double()).dtype == torch.float64
    half = (
        torch.full((6, 65536), 1.0).mul(torch.arange(6)[:, None]).half()
    )  # its own Gram would be infinite
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (
            gram_of(x).dtype == gram_of(x.bfloat16()).dtype == gram_of(half).dtype == torch.float32
        )
        assert torch.equal(gram_of(x), found)
        assert gram_of(half).isfinite().all()


@pytest.mark.parametrize("value", [0.0, 0.1, -1000.1, 1e-30, 1e30])
def test_constant_features_give_zeros(value: float) -> None:
    assert not gram_of(torch.full((64, 3000), value)).any()
    assert not layer_grams([torch.full((64, 30), value)]).stack.any()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((4, 3), torch.nan), "the output holds NaN or infinity"),
        (torch.tensor([[1.0], [torch.inf], [0.0]]), "the output holds NaN or infinity"),
        (torch.ones(4), r"the output has shape \(4,\)"),
        (torch.ones(4, 3).int(), "the output is of torch.int32"),
        (torch.ones(4, 0), "which holds nothing"),
    ],
)
def test_bad_outputs(x: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gram_of(x)


def test_many_layers_are_as_one() -> None:
    layers = [
        torch.randn(8, 5),
        torch.randn(8, 6) + 50,
        torch.randn(8, 7) * 1e-25,
        torch.randn(8, 4).bfloat16(),
    ]
    found = layer_grams(layers)
    for k, layer in zip(found.stack, layers, strict=True):
        assert torch.allclose(k, gram_of(layer).double(), rtol=1e-6, atol=0)
    assert layer_grams([*layers, torch.randn(8, 2).double()]).stack.dtype == torch.float64
    assert layer_grams([torch.full((8, 2), torch.nan)]).stack.isnan().all()

"""The mean correlation of rows: its hand-written gradient against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tutelage.methods._correlation import _by_autograd, mean_correlation


def rows(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 6, 9, generator=noise, dtype=torch.float64)
    x[1] = 0.3  # constant in x, in y, in both, and nearly
    y[2] = -7.0
    x[3] = y[3] = 0.1
    x[4] *= 1e-9
    return x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_()


@pytest.mark.parametrize("eps", [1e-8, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_those_of_autograd(dtype: torch.dtype, eps: float) -> None:
    sides = rows(dtype)
    value, expected = mean_correlation(*sides, eps), _by_autograd(*sides, eps)
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(value, expected, rtol=rtol, atol=0)
    found = torch.autograd.grad(2 * value, sides)
    for gradient, by_autograd in zip(found, torch.autograd.grad(expected, sides), strict=True):
        scale = by_autograd.abs().amax(1, keepdim=True)
        assert bool((gradient - 2 * by_autograd <= 10 * rtol * scale).all())
        assert bool((gradient - 2 * by_autograd >= -10 * rtol * scale).all())
    assert not found[0][1].any()
    assert not found[1][2].any()


def test_one_side_alone_and_twice() -> None:
    noise = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 3, 5, generator=noise, dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: mean_correlation(a, y, 1e-8), x)
    assert torch.autograd.gradgradcheck(lambda a: mean_correlation(a, y, 1e-8), x)

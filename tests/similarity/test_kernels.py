"""Kernels: the bandwidth conventions in the wild, equal rows, far rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.vectors import tensor
from tutelage import UserError
from tutelage.similarity import (
    CosineKernel,
    KernelFunction,
    LinearKernel,
    RBFKernel,
    SimilarityWarning,
    cka,
)
from tutelage.similarity.kernels import squared_distances


def rows(n: int = 10, d: int = 4) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64)


def plain_distances(x: torch.Tensor) -> torch.Tensor:
    return (x[:, None] - x).square().sum(-1)


def test_bandwidths_are_what_their_names_say() -> None:
    for n in (9, 10):
        x = rows(n)
        d = plain_distances(x)
        off = d[~torch.eye(n, dtype=torch.bool)]
        expected = {
            "all": np.median(d.numpy()),
            "lower": d.median(),
            "off-diagonal": np.median(off.numpy()),
            "nonzero": d[d > 0].median(),
            "mean": off.sqrt().mean() ** 2,
        }
        for median, value in expected.items():
            assert RBFKernel(median=median).bandwidth(x) == pytest.approx(
                float(value), rel=1e-12
            ), median
            assert RBFKernel(0.7, median).bandwidth(3 * x) == pytest.approx(
                9 * float(value), rel=1e-12
            )


def test_the_kernels_are_their_formulas() -> None:
    x = rows()
    d = plain_distances(x)
    assert torch.allclose(LinearKernel().gram(x), x @ x.mT)
    unit = x / x.norm(dim=1, keepdim=True)
    assert torch.allclose(CosineKernel().gram(x), unit @ unit.mT)
    assert torch.allclose(RBFKernel(0.5, m=3.0).gram(x), torch.exp(-d / (2 * 0.25 * 3.0)))
    assert torch.allclose(
        RBFKernel(2.0).gram(x), torch.exp(-d / (2 * 4 * RBFKernel().bandwidth(x)))
    )


def test_equal_rows_have_distance_zero_whatever_the_blas_rounds() -> None:
    x = torch.randn(30, 77) * 1000
    x = x[torch.randint(0, 10, (90,))]
    d = squared_distances(x.double())
    same = (x[:, None] == x).all(-1)
    assert (d[same] == 0).all()
    assert (d[~same] > 0).all()
    assert (d.diagonal() == 0).all()


def test_a_median_of_zero_falls_back_to_positive_distances_and_says_so() -> None:
    x = torch.cat([torch.zeros(40, 3), torch.randn(10, 3)]).double()
    positive = plain_distances(x)
    for median in ("all", "lower", "off-diagonal"):
        with pytest.warns(
            SimilarityWarning, match="many equal rows.*the median of the positive ones"
        ):
            m = RBFKernel(median=median).bandwidth(x)
        assert m == pytest.approx(float(positive[positive > 0].median()))
    with pytest.warns(SimilarityWarning, match="many equal rows"):
        assert cka(x, x, kernel=RBFKernel()).item() == pytest.approx(1.0)
    assert RBFKernel(median="nonzero").bandwidth(x) > 0


def test_all_rows_equal_is_an_error_unless_the_bandwidth_is_given() -> None:
    with pytest.raises(
        UserError, match="all rows of x are equal: the median bandwidth is undefined"
    ):
        RBFKernel().gram(torch.full((5, 2), 0.1))
    assert RBFKernel(m=1.0).gram(torch.full((5, 2), 0.1)).tolist() == [[1.0] * 5] * 5
    with pytest.warns(SimilarityWarning, match="in x, y"):
        assert cka(torch.ones(5, 2), torch.ones(5, 2), kernel=RBFKernel(m=1.0)).isnan()


def test_distances_have_finite_gradients_on_the_diagonal() -> None:
    x = torch.cat([rows(4), rows(1).expand(3, -1)]).requires_grad_()
    RBFKernel(m=2.0).gram(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    x = rows(5).requires_grad_()
    assert torch.autograd.gradcheck(squared_distances, (x,))
    for kernel in (LinearKernel(), CosineKernel(), RBFKernel(m=2.0)):
        assert torch.autograd.gradcheck(kernel.gram, (x,))


def test_a_far_subset_keeps_the_digits_of_the_reference() -> None:
    x = tensor("cka_reliability", "case9_X")
    x[tensor("cka_reliability", "case9_S", torch.int64)] += 1e5
    near = squared_distances(x)[:5, :5]
    assert torch.allclose(near, plain_distances(x)[:5, :5], rtol=0, atol=1e-5)


def test_a_kernel_of_ones_own() -> None:
    class Laplace(KernelFunction):
        def matrix(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.exp(-torch.cdist(rows, rows, p=1))

    x, y = rows(), rows()
    assert cka(x, x, kernel=Laplace()).item() == pytest.approx(1.0)
    assert abs(cka(x, y, kernel=Laplace()).item()) < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RBFKernel(0.0), "the bandwidth of an RBF kernel is positive"),
        (lambda: RBFKernel(m=-1.0), "the bandwidth of an RBF kernel is positive"),
        (lambda: RBFKernel(median="upper"), "the median of an RBF kernel is one of"),
        (lambda: RBFKernel().gram(torch.ones(3)), "but features are"),
        (lambda: RBFKernel().bandwidth(torch.full((3, 2), torch.nan)), "NaN or infinity"),
    ],
)
def test_bad_settings(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()

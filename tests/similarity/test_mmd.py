"""MMD, and the identity and bound that link it to alignment, on anything hypothesis finds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.helpers.vectors import cases, tensor
from tutelage import UserError
from tutelage.similarity import (
    CosineKernel,
    LinearKernel,
    RBFKernel,
    SimilarityWarning,
    alignment,
    alignment_mmd_bound,
    mmd2,
)

KERNELS = {"linear": LinearKernel(), "cosine": CosineKernel(), "rbf": RBFKernel(0.7)}


def by_definition(k: torch.Tensor, n: int, unbiased: bool) -> torch.Tensor:
    m = len(k) - n
    xx, yy, xy = k[:n, :n], k[n:, n:], k[:n, n:]
    if unbiased:
        within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
        return within - 2 * xy.mean()
    return xx.mean() + yy.mean() - 2 * xy.mean()


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_the_definition(kernel: object, estimator: str, offset: float) -> None:
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.randn(14, 3, dtype=torch.float64) + 0.5
    moved = x + offset, y + offset
    truth = torch.cat(
        moved if isinstance(kernel, CosineKernel) else (x, y)
    )  # the others are blind to translation
    expected = by_definition(kernel.gram(truth), len(x), estimator == "unbiased")
    assert torch.isclose(
        mmd2(*moved, kernel=kernel, estimator=estimator), expected, rtol=0, atol=1e-10
    )


def test_the_linear_one_is_the_distance_of_the_means_and_the_biased_ones_are_not_negative() -> None:
    x, y = torch.randn(9, 3).double(), torch.randn(14, 3).double()
    assert torch.isclose(mmd2(x, y), (x.mean(0) - y.mean(0)).square().sum())
    for kernel in KERNELS.values():
        assert mmd2(x, y, kernel=kernel) > 0
        assert mmd2(x, x, kernel=kernel).abs() < 1e-15


def test_the_unbiased_one_is_zero_on_average() -> None:
    values = torch.stack(
        [mmd2(torch.randn(6, 2), torch.randn(7, 2), estimator="unbiased") for _ in range(500)]
    )
    assert values.min() < 0
    assert abs(values.mean().item()) < 4 * values.std().item() / 500**0.5


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_gradcheck(estimator: str) -> None:
    sides = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5)]
    for kernel in (LinearKernel(), CosineKernel(), RBFKernel(m=2.0)):
        assert torch.autograd.gradcheck(
            lambda a, b, k=kernel: mmd2(a, b, kernel=k, estimator=estimator), sides
        )


def test_bad_samples() -> None:
    with pytest.raises(
        UserError, match="x has 3 columns, y 4; a discrepancy needs the same variables"
    ):
        mmd2(torch.randn(5, 3), torch.randn(5, 4))
    with pytest.raises(UserError, match="at least 2 are needed"):
        mmd2(torch.randn(1, 3), torch.randn(5, 3), estimator="unbiased")


# ---- Theorem 2 ----


def features(n: int, width: int) -> st.SearchStrategy:
    elements = st.floats(-100, 100, allow_subnormal=False).map(lambda value: round(value, 3))
    return arrays("float64", (n, width), elements=elements).map(torch.from_numpy)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(2, 9), st.integers(1, 5), st.integers(1, 5))
def test_identity_and_bound_hold_for_everything(
    data: st.DataObject, n: int, p: int, q: int
) -> None:
    x, y = data.draw(features(n, p)), data.draw(features(n, q))
    if not (x.any() and y.any()):
        return
    found = alignment_mmd_bound(x, y)
    assert found.constant == n**2 / 2
    assert torch.isclose(found.alignment, 1 - found.constant * found.distance, rtol=0, atol=1e-12)
    assert torch.isclose(found.bound, 1 - found.constant * found.gap, rtol=0, atol=1e-15)
    assert found.alignment <= found.bound + 1e-12
    assert torch.isclose(found.alignment, alignment(x, y), rtol=0, atol=1e-12)
    k, l = ((side @ side.mT).norm() for side in (x, y))  # noqa: E741
    means = x.mean(0).square().sum() / k - y.mean(0).square().sum() / l
    assert torch.isclose(found.gap, means.square(), rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 12), st.integers(1, 6), st.integers(0, 2**31))
def test_centered_the_bound_says_nothing(n: int, p: int, seed: int) -> None:
    torch.manual_seed(seed)
    found = alignment_mmd_bound(
        torch.randn(n, p).double() + 3, torch.randn(n, 4).double(), center=True
    )
    assert found.bound.item() == pytest.approx(1.0, abs=1e-12)
    assert torch.isclose(found.alignment, 1 - found.constant * found.distance, rtol=0, atol=1e-12)


def test_the_bound_is_loose_on_the_reference_cases() -> None:
    bounds = {}
    for name in cases("cka_measures"):
        found = alignment_mmd_bound(*(tensor("cka_measures", f"{name}_{side}") for side in "xy"))
        expected = tensor("cka_measures", f"{name}_kernel_alignment_uncentred")
        assert torch.isclose(found.alignment, expected, rtol=0, atol=1e-10)
        bounds[name] = found.bound.item()
    assert all(bounds[name] >= 0.999 for name in ("c00", "c01", "c04", "c09"))
    assert bounds["c07"] == pytest.approx(0.632, abs=5e-4)


def test_the_bound_can_be_differentiated() -> None:
    sides = [torch.randn(5, width, dtype=torch.float64, requires_grad=True) for width in (3, 4)]
    for center in (False, True):

        def all_of(
            a: torch.Tensor, b: torch.Tensor, center: bool = center
        ) -> tuple[torch.Tensor, ...]:
            found = alignment_mmd_bound(a, b, center=center)
            return found.alignment, found.bound, found.distance

        assert torch.autograd.gradcheck(all_of, sides)


def test_a_zero_side_is_undefined() -> None:
    with pytest.warns(SimilarityWarning, match="the alignment is undefined .* in x"):
        assert alignment_mmd_bound(torch.zeros(5, 2), torch.randn(5, 2)).alignment.isnan()
    with pytest.warns(SimilarityWarning, match="in y"):
        assert alignment_mmd_bound(torch.randn(5, 2), torch.ones(5, 2), center=True).bound.isnan()

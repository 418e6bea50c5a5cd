"""HSIC against the definitions of Gretton and Song, and the official numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.vectors import cases, tensor
from tests.similarity.formulas import centering, song
from tutelage import UserError
from tutelage.similarity import CosineKernel, LinearKernel, RBFKernel, hsic

KERNELS = {"linear": LinearKernel(), "cosine": CosineKernel(), "rbf": RBFKernel(0.7)}


@pytest.mark.parametrize("name", cases("cka_measures"))
@pytest.mark.parametrize(("estimator", "key"), [("biased", "hsic0"), ("unbiased", "hsic1")])
def test_measures(name: str, estimator: str, key: str) -> None:
    x, y = (tensor("cka_measures", f"{name}_{side}") for side in "xy")
    for one, two, suffix in ((x, y, ""), (x, x, "_xx"), (y, y, "_yy")):
        expected = tensor("cka_measures", f"{name}_{key}{suffix}").item()
        assert hsic(one, two, estimator=estimator).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("case", [0, 1, 3, 4, 6, 7])
def test_pairs_of_the_reliability_paper(case: int) -> None:
    x, y = (tensor("cka_reliability", f"case{case}_{side}") for side in "XY")
    unbiased = tensor("cka_reliability", f"case{case}_hsic_unbiased").tolist()
    for one, two, suffix, expected in (
        (x, y, "xy", unbiased[0]),
        (x, x, "xx", unbiased[1]),
        (y, y, "yy", unbiased[2]),
    ):
        assert hsic(one, two).item() == pytest.approx(expected, rel=1e-10)
        plain = tensor(
            "cka_reliability", f"case{case}_hsic_linear_{suffix}"
        ).item()  # without 1 / (n - 1)²
        assert hsic(one, two, estimator="biased").item() * (len(x) - 1) ** 2 == pytest.approx(
            plain, rel=1e-12
        )


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("shape", [(9, 20, 12), (40, 3, 4)], ids=str)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_the_definitions(kernel: object, shape: tuple[int, int, int], scale: float) -> None:
    n, p, q = shape
    x, y = torch.randn(n, p, dtype=torch.float64) * scale, torch.randn(n, q, dtype=torch.float64)
    y[:, :3] += x[:, :3] / scale
    k, l = kernel.gram(x), kernel.gram(y)  # noqa: E741
    biased = (centering(k) * l).sum() / (n - 1) ** 2
    assert hsic(x, y, kernel=kernel, estimator="biased").item() == pytest.approx(
        biased.item(), rel=1e-9
    )
    assert hsic(x, y, kernel=kernel).item() == pytest.approx(song(k, l).item(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 12), st.integers(1, 8), st.integers(0, 2**31))
def test_a_side_with_itself_is_never_negative_and_moving_it_changes_nothing(
    n: int, p: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(n, p, dtype=torch.float64), torch.randn(n, 3, dtype=torch.float64)
    for estimator in ("biased", "unbiased"):
        assert hsic(x, x, estimator=estimator) >= 0
        assert torch.isclose(
            hsic(x + 20, y, estimator=estimator), hsic(x, y, estimator=estimator), atol=1e-11
        )


def test_the_unbiased_one_has_mean_zero_over_pairings_and_may_be_negative() -> None:
    x, y = torch.randn(2, 6, 4, dtype=torch.float64)
    values = torch.stack([hsic(x, y[torch.randperm(6)]) for _ in range(500)])
    assert values.min() < 0
    assert abs(values.mean().item()) < 4 * values.std().item() / 500**0.5


def test_constant_features_covary_with_nothing() -> None:
    for constant in (0.0, 0.1, 1000.1):
        dead = torch.full((8, 3), constant)
        for estimator in ("biased", "unbiased"):
            assert hsic(dead, torch.randn(8, 2), estimator=estimator).item() == 0


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("shape", [(5, 8, 7), (12, 2, 3)], ids=str)
def test_gradcheck(estimator: str, shape: tuple[int, int, int]) -> None:
    n, p, q = shape
    sides = [torch.randn(n, width, dtype=torch.float64, requires_grad=True) for width in (p, q)]
    for kernel in (LinearKernel(), CosineKernel(), RBFKernel(m=3.0)):
        assert torch.autograd.gradcheck(
            lambda a, b, k=kernel: hsic(a, b, kernel=k, estimator=estimator), sides
        )


def test_bad_input() -> None:
    with pytest.raises(UserError, match="x has 3 rows, but at least 4"):
        hsic(torch.randn(3, 2), torch.randn(3, 2))
    with pytest.raises(UserError, match="the estimator of hsic is one of"):
        hsic(torch.randn(8, 2), torch.randn(8, 2), estimator="debiased")

"""Subset translation: reference, closed form against the direct value, limits, corollaries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers.vectors import tensor
from tests.similarity.conditioning import debiased_bound
from tutelage import UserError
from tutelage.similarity import (
    RBFKernel,
    SimilarityWarning,
    cka,
    participation_ratio,
    subset_translation,
    subset_translation_cka,
    subset_translation_limit,
    weakest_subset,
)

RELIABILITY = "cka_reliability"
CASES = [9, 10, 12, 13]


def given_case(case: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, v, c = (tensor(RELIABILITY, f"case{case}_{key}") for key in ("X", "v", "c"))
    mask = torch.zeros(len(x), dtype=torch.bool)
    mask[tensor(RELIABILITY, f"case{case}_S", torch.int64)] = True
    return x, mask, v, c


@pytest.mark.parametrize("case", CASES)
def test_reference_values_directly_and_by_the_closed_form(case: int) -> None:
    x, mask, v, cs = given_case(case)
    expected = tensor(RELIABILITY, f"case{case}_cka_biased_unbiased_rbf1_rbf05")
    for column, (estimator, tolerance) in enumerate((("biased", 1e-12), ("debiased", 1e-10))):
        closed = subset_translation_cka(x, mask, v, cs, estimator=estimator)
        assert torch.allclose(closed, expected[:, column], rtol=0, atol=tolerance)
        direct = [
            cka(x, subset_translation(x, mask, v, c), estimator=estimator) for c in cs.tolist()
        ]
        # A single row that moved far leaves U(K) small beside K: no algorithm has 10 digits there.
        bounds = [
            max(1e-10, debiased_bound(x, subset_translation(x, mask, v, c))) for c in cs.tolist()
        ]
        errors = (torch.stack(direct) - expected[:, column]).abs()
        assert bool((errors <= torch.tensor(bounds)).all())
    for column, t in ((2, 1.0), (3, 0.5)):
        kernel = RBFKernel(t, "nonzero")
        direct = [
            cka(x, subset_translation(x, mask, v, c), kernel=kernel, estimator="biased")
            for c in cs.tolist()
        ]
        assert torch.allclose(torch.stack(direct), expected[:, column], rtol=0, atol=1e-7)


@pytest.mark.parametrize("c", [1e2, 1e4, 1.5e5, 1e6, 1e8])
def test_a_far_row_costs_no_more_digits_than_it_must(c: float) -> None:
    x, mask, v, _ = given_case(10)
    moved = subset_translation(x, mask, v, c)
    exact = subset_translation_cka(x, mask, v, [c], estimator="debiased")[0]
    bound = debiased_bound(x, moved)
    for order in (torch.arange(len(x)), torch.randperm(len(x)), torch.arange(len(x)).flip(0)):
        # A tenth of the bound, since rounding errors do not all add up.
        assert abs(float(cka(x[order], moved[order]) - exact)) <= bound / 10
    # The form in feature space squares the condition; it was taken down to 1e-8 of ‖K‖².
    assert bound < 3e-15 * c + 1e-11


@pytest.mark.parametrize("case", CASES)
def test_reference_limits(case: int) -> None:
    x, mask, v, _ = given_case(case)
    biased = subset_translation_limit(x, mask)
    debiased = subset_translation_limit(x, mask, estimator="debiased", v=v)
    assert torch.isclose(
        biased, tensor(RELIABILITY, f"case{case}_limit_theorem_biased"), rtol=0, atol=1e-12
    )
    assert torch.isclose(
        debiased, tensor(RELIABILITY, f"case{case}_limit_unbiased_derived"), rtol=0, atol=1e-10
    )
    far = tensor(RELIABILITY, f"case{case}_cka_at_c1e7")
    assert torch.isclose(biased, far[0], rtol=0, atol=1e-7)
    assert torch.isclose(debiased, far[1], rtol=0, atol=1e-7 if int(mask.sum()) > 1 else 1e-5)
    assert participation_ratio(x).item() == pytest.approx(
        tensor(RELIABILITY, f"case{case}_participation_ratio").item(), rel=1e-12
    )
    rho = tensor(RELIABILITY, f"case{case}_rho").item()
    assert rho == mask.double().mean().item()
    centered = x - x.mean(0)
    theorem = (
        rho
        / (1 - rho)
        * centered[mask].mean(0).square().sum()
        / (centered.mT @ centered / len(x)).norm()
    )
    assert torch.isclose(biased, theorem, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 20), st.integers(1, 25), st.floats(-50, 50), st.integers(0, 2**31))
def test_the_closed_form_is_the_direct_value(n: int, p: int, c: float, seed: int) -> None:
    torch.manual_seed(seed)
    x, v = torch.randn(n, p, dtype=torch.float64) + 2, torch.randn(p, dtype=torch.float64)
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.randperm(n)[: int(torch.randint(1, n, ()))]] = True
    for estimator in ("biased", "debiased"):
        direct = cka(x, subset_translation(x, mask, v, c), estimator=estimator)
        closed = subset_translation_cka(x, mask, v, [c], estimator=estimator)[0]
        assert torch.isclose(closed, direct, rtol=0, atol=1e-9)
    limits = [subset_translation_limit(x, mask, v=torch.randn(p)) for _ in range(2)]
    assert limits[0] == limits[1]
    assert torch.isclose(subset_translation_cka(x, mask, v, [1e9])[0], limits[0], rtol=0, atol=1e-6)
    if 1 < int(mask.sum()) < n - 1:
        far = subset_translation_cka(x, mask, v, [1e9], estimator="debiased")[0]
        assert torch.isclose(
            far, subset_translation_limit(x, mask, estimator="debiased"), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("rest", [False, True])
def test_a_single_row_has_a_debiased_limit_that_depends_on_the_direction(rest: bool) -> None:
    x, mask, v, _ = given_case(10)
    mask = ~mask if rest else mask
    plus, minus = subset_translation_cka(x, mask, v, [1e9, -1e9], estimator="debiased").tolist()
    limit = subset_translation_limit(x, mask, estimator="debiased", v=v).item()
    assert limit == pytest.approx(-0.0299 if not rest else 0.0299, abs=1e-4)
    assert (plus, minus) == (pytest.approx(limit, abs=1e-6), pytest.approx(-limit, abs=1e-6))
    with pytest.raises(
        UserError,
        match="the debiased limit for a single moved row depends on the direction; give v",
    ):
        subset_translation_limit(x, mask, estimator="debiased")


def test_a_translation_that_no_logit_sees_brings_cka_to_its_limit() -> None:
    x, head = torch.randn(300, 64, dtype=torch.float64), torch.randn(10, 64, dtype=torch.float64)
    hidden = torch.linalg.svd(head).Vh[-1]
    mask = torch.arange(300) < 30
    moved = subset_translation(x, mask, hidden, 1e6)
    assert torch.allclose(moved @ head.mT, x @ head.mT, rtol=0, atol=1e-6)
    value = cka(x, moved, estimator="biased")
    assert value < 0.1
    assert torch.isclose(value, subset_translation_limit(x, mask), rtol=0, atol=1e-6)


def test_other_corollaries() -> None:
    x, y = torch.randn(2, 60, 5, dtype=torch.float64)
    one, two = torch.arange(60) < 20, torch.arange(60) % 2 == 0
    v, w = torch.randn(2, 5, dtype=torch.float64)
    far = subset_translation(x, one, v, 1e7), subset_translation(y, one, w, 1e7)
    assert cka(*far, estimator="biased").item() == pytest.approx(
        1.0, abs=1e-5
    )  # the same subset on both sides
    crossed = cka(far[0], subset_translation(y, two, w, 1e7), estimator="biased").item()
    both, first, second = (float(each.double().mean()) for each in (one & two, one, two))
    expected = (both - first * second) ** 2 / (first * (1 - first) * second * (1 - second))
    assert crossed == pytest.approx(expected, abs=1e-5)
    point = torch.arange(60) == 7
    centered = x - x.mean(0)
    outlier = centered[7].square().sum() / (59 * (centered.mT @ centered / 60).norm())
    assert torch.isclose(subset_translation_limit(x, point), outlier, rtol=0, atol=1e-12)


def test_figure_4b_matrix_products_with_a_common_mean() -> None:
    x = torch.rand(400, 20, dtype=torch.float64) - 0.5
    x[200:, 0] += 1.1
    sigma = torch.cov(x.mT, correction=0)
    ones = torch.ones(20, dtype=torch.float64)
    limit = (sigma @ ones).square().sum() / (sigma.norm() * (ones @ sigma @ ones))
    mean = x @ (1 + 1e-7 * torch.randn(20, 20, dtype=torch.float64))
    assert torch.isclose(cka(x, mean, estimator="biased"), limit, rtol=0, atol=1e-5)


def test_gradcheck() -> None:
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    mask, v = torch.arange(7) < 3, torch.randn(3)
    assert torch.autograd.gradcheck(lambda a: subset_translation(a, mask, v, 2.0), x)
    for estimator in ("biased", "debiased"):
        assert torch.autograd.gradcheck(
            lambda a, e=estimator: subset_translation_cka(a, mask, v, [0.5, 3.0], estimator=e), x
        )
        assert torch.autograd.gradcheck(
            lambda a, e=estimator: subset_translation_limit(a, mask, estimator=e, v=v), x
        )


@pytest.mark.parametrize("labeled", [False, True])
def test_the_weakest_subset_is_the_one_with_the_lowest_limit(labeled: bool) -> None:
    x = torch.randn(40, 3, dtype=torch.float64).cumsum(0)
    labels = torch.arange(40) % 4 * 10 if labeled else None
    found = weakest_subset(x, labels)
    groups = torch.arange(40) if labels is None else labels
    limits = {
        int(group): subset_translation_limit(x, groups == group).item() for group in groups.unique()
    }
    assert found.limit == pytest.approx(min(limits.values()))
    assert limits[found.group] == pytest.approx(found.limit)
    assert found.size == (10 if labeled else 1)
    wide = torch.cat([x, torch.zeros(40, 1)], 1)  # a direction that the features do not use
    unit = (x - x.mean(0)).square().sum().div(40).sqrt()
    at = [(found.distance * factor) * unit for factor in (1 - 1e-6, 1 + 1e-6)]
    before, after = subset_translation_cka(wide, groups == found.group, torch.eye(4)[3], at)
    assert before > 0.5 > after


def test_a_subset_that_cannot_bring_cka_below_one_half() -> None:
    x = torch.cat([torch.zeros(50, 2), torch.ones(50, 2)]) + 0.01 * torch.randn(100, 2)
    found = weakest_subset(x, torch.arange(100) // 50)
    assert found.limit > 0.9
    assert found.distance == math.inf


def test_constant_features_are_undefined() -> None:
    x, mask = torch.ones(6, 2), torch.arange(6) < 2
    with pytest.warns(SimilarityWarning, match="CKA is undefined"):
        assert subset_translation_cka(x, mask, torch.ones(2), [1.0]).isnan().all()
    with pytest.warns(SimilarityWarning, match="CKA is undefined"):
        assert math.isnan(weakest_subset(x).limit)


def test_bad_subsets_and_directions() -> None:
    x, mask, v = torch.randn(6, 3), torch.arange(6) < 2, torch.ones(3)
    for bad in (torch.zeros(6).bool(), torch.ones(6).bool()):
        with pytest.raises(UserError, match="the mask must choose some rows and leave some"):
            subset_translation(x, bad, v, 1.0)
    for bad in (mask[:5], mask.long(), torch.tensor([0, 1])):
        with pytest.raises(UserError, match=r"the mask must be bool of shape \(6,\)"):
            subset_translation_limit(x, bad)
    with pytest.raises(UserError, match=r"the direction must have shape \(3,\)"):
        subset_translation_cka(x, mask, torch.ones(2), [1.0])
    for bad in (torch.zeros(3), torch.full((3,), torch.nan)):
        with pytest.raises(UserError, match="the direction must be finite and not zero"):
            subset_translation(x, mask, bad, 1.0)
    with pytest.raises(UserError, match="x has 3 rows, but at least 4"):
        subset_translation_cka(x[:3], mask[:3], v, [1.0], estimator="debiased")
    with pytest.raises(UserError, match="the estimator of a subset translation is one of"):
        subset_translation_limit(x, mask, estimator="unbiased")
    with pytest.raises(UserError, match="labels must be 6 integers"):
        weakest_subset(x, torch.ones(5).long())
    with pytest.raises(UserError, match="all rows have one label"):
        weakest_subset(x, torch.ones(6).long())

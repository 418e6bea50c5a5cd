"""The report: its numbers are those of the functions, and its verdict finds what was planted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import tensor
from tutelage import UserError
from tutelage.similarity import (
    RBFKernel,
    cka,
    expected_cka_by_chance,
    participation_ratio,
    reliability_report,
    row_shares,
    weakest_subset,
)


def related(n: int, p: int, q: int, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, p)
    return x, x @ torch.randn(p, q) / p**0.5 + noise * torch.randn(n, q)


def test_the_numbers_are_those_of_the_functions() -> None:
    x, y = related(80, 6, 40)
    labels = torch.arange(80) % 5
    report = reliability_report(x, y, labels=labels)
    biased = cka(x, y, estimator="biased").item()
    assert (report.n, report.dims) == (80, (6, 40))
    assert report.effective == pytest.approx(
        (participation_ratio(x).item(), participation_ratio(y).item())
    )
    assert report.biased == pytest.approx(biased)
    assert report.debiased == pytest.approx(cka(x, y).item())
    assert report.gap == pytest.approx(biased - cka(x, y).item())
    assert report.chance == pytest.approx(expected_cka_by_chance(x, y).item())
    assert report.sensitivity == (weakest_subset(x, labels), weakest_subset(y, labels))
    for t in (0.2, 0.5, 1.0):
        kernel = RBFKernel(t, "nonzero")
        assert report.rbf[t] == pytest.approx(cka(x, y, kernel=kernel, estimator="biased").item())
    shares = row_shares(x, y)
    assert [row for row, _ in report.shares] == shares.abs().argsort(descending=True)[:5].tolist()
    rest = torch.ones(80, dtype=torch.bool)
    rest[[row for row, _ in report.shares]] = False
    assert report.without_top == pytest.approx(cka(x[rest], y[rest]).item())
    assert report.without_top_biased == pytest.approx(
        cka(x[rest], y[rest], estimator="biased").item()
    )


@pytest.mark.parametrize("shape", [(20, 50, 30), (200, 4, 6)], ids=str)
def test_row_shares_are_the_formula_and_sum_to_one(shape: tuple[int, int, int]) -> None:
    x, y = (side.double() for side in related(*shape))
    a, b = x - x.mean(0), y - y.mean(0)
    expected = torch.einsum("np,pq,nq->n", a, a.mT @ b, b) / (a.mT @ b).square().sum()
    assert torch.allclose(row_shares(x, y), expected, rtol=0, atol=1e-12)
    assert row_shares(x, y).sum().item() == pytest.approx(1.0)


def test_the_share_of_the_reference_row() -> None:
    x = tensor("cka_reliability", "case10_X")
    row = tensor("cka_reliability", "case10_S", torch.int64)
    x[row] += 50 * tensor("cka_reliability", "case10_v")
    assert row_shares(x, x)[row].item() == pytest.approx(0.84, abs=0.005)


@pytest.mark.parametrize(
    "kind", ["plain", "rectified", "low rank", "classes", "unrelated", "narrow"]
)
def test_clean_features_are_trusted(kind: str) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        x, y = related(400, 32, 24)
        if kind == "rectified":
            x, y = x.relu(), y.relu()
        elif kind == "low rank":
            x = torch.randn(400, 3) @ torch.randn(3, 32)
            y = x @ torch.randn(32, 24) / 5 + 0.3 * torch.randn(400, 24)
        elif kind == "classes":
            center = torch.randn(10, 32)[torch.arange(400) % 10]
            x, y = center + x, center @ torch.randn(32, 24) / 5 + y
        elif kind == "unrelated":
            y = torch.randn(400, 24)
        elif kind == "narrow":
            x, y = related(400, 2, 2)
        report = reliability_report(x, y)
        assert report.verdict == "trust", str(report)
        assert report.reasons == ("No row, bandwidth or bias stands out, and 400 rows are enough.",)


@pytest.mark.parametrize("rows", [1, 2, 5, 10])
def test_planted_rows_are_found(rows: int) -> None:
    x, y = torch.randn(2, 256, 32)
    x[:rows] += 30
    y[:rows] += 30
    report = reliability_report(x, y)
    assert report.verdict == "do not trust"
    assert "of 256 rows sway it" in report.reasons[0]
    assert abs(report.without_top) < 0.1
    assert {row for row, _ in report.shares} >= set(range(rows))
    assert report.biased > 0.9
    assert (report.debiased > 0.5) == (rows > 1)


def test_few_rows_are_said_to_be_few() -> None:
    report = reliability_report(*related(8, 4, 4))
    assert report.verdict == "do not trust"
    assert any(
        "8 rows are few: for unrelated features CKA would spread by 0.18" in each
        for each in report.reasons
    )
    assert reliability_report(*related(32, 2, 2, 0.1)).verdict == "caution"
    assert reliability_report(torch.randn(4, 3), torch.randn(4, 3)).verdict == "do not trust"


def test_wide_features_are_biased() -> None:
    report = reliability_report(*torch.randn(2, 64, 4096))
    assert report.verdict == "caution"
    assert report.biased > 0.9
    assert report.chance == pytest.approx(report.biased, abs=0.02)
    assert any("chance alone gives 0.98; read the debiased one" in each for each in report.reasons)


def test_kernels_that_disagree() -> None:
    x = torch.randn(300, 20)
    far = x.clone()
    far[:30] += 1e4
    report = reliability_report(x, far)
    assert report.rbf[1.0] - report.biased > 0.3
    assert any("what agrees are the small distances only" in each for each in report.reasons)
    assert report.verdict == "caution"


def test_a_constant_side_is_not_trusted_and_nothing_is_a_number() -> None:
    report = reliability_report(torch.randn(10, 3), torch.full((10, 4), 0.1))
    assert report.verdict == "do not trust"
    assert report.reasons == ("All 10 rows of y are the same, so CKA is undefined.",)
    assert all(
        math.isnan(value) for value in (report.biased, report.debiased, report.gap, report.chance)
    )
    one_hot = reliability_report(torch.eye(20), torch.randn(20, 3))
    assert one_hot.verdict == "do not trust"
    assert any("all pairs of items are equally alike" in each for each in one_hot.reasons)


def test_many_rows_need_no_large_kernel() -> None:
    report = reliability_report(*related(5000, 4, 4))
    assert len(report.shares) == 250
    assert report.verdict == "trust"


def test_it_can_be_read() -> None:
    text = str(reliability_report(*torch.randn(2, 64, 4096)))
    assert text.startswith("caution: CKA ")
    assert "n = 64" in text.splitlines()[0]
    assert text.splitlines()[1].startswith("- ")


def test_how_many_rows_are_left_out() -> None:
    x, y = related(40, 5, 5)
    assert len(reliability_report(x, y).shares) == 5
    assert len(reliability_report(x, y, top=3).shares) == 3
    assert len(reliability_report(x, y, top=100).shares) == 36
    assert len(reliability_report(x[:4], y[:4]).shares) == 0


def test_bad_input() -> None:
    with pytest.raises(UserError, match="x has 3 rows, but at least 4"):
        reliability_report(torch.randn(3, 2), torch.randn(3, 2))
    with pytest.raises(UserError, match="x has 8 rows, y 9"):
        reliability_report(torch.randn(8, 2), torch.randn(9, 2))
    with pytest.raises(UserError, match="y holds NaN"):
        reliability_report(torch.randn(8, 2), torch.full((8, 2), torch.nan))

"""The matrix of reports: each is that of its pair, and a pair is cheap."""

from __future__ import annotations

import math
import time
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import UserError
from tutelage.analysis import reliability_matrix
from tutelage.similarity import ReliabilityReport, gram_of, reliability_report
from tutelage.similarity._reliability_sides import ReliabilitySide, report_of_sides


def planted(rows: int) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, 128, 8)
    x[:rows] += 30
    y[:rows] += 30
    return x, y


def same(found: Any, expected: Any, error: float = 1e-8) -> bool:
    if isinstance(found, float):
        both_nan = math.isnan(found) and math.isnan(expected)
        return both_nan or found == pytest.approx(expected, abs=error)
    if isinstance(found, tuple):
        pairs = zip(found, expected, strict=True)
        return len(found) == len(expected) and all(same(*pair, error) for pair in pairs)
    if isinstance(found, dict):  # `rbf`, products of float32 kernels of norm 1
        equal_keys = found.keys() == expected.keys()
        return equal_keys and all(same(found[k], expected[k], max(error, 1e-6)) for k in found)
    if hasattr(found, "__dataclass_fields__"):
        names = [each.name for each in fields(found)]
        return all(same(getattr(found, name), getattr(expected, name), error) for name in names)
    return bool(found == expected)


def test_a_report_of_two_sides_is_that_of_the_features() -> None:
    torch.manual_seed(0)
    base = torch.randn(128, 40)
    far = torch.randn(128, 6)
    far[3] *= 1e5
    layers = [
        base,
        base @ torch.randn(40, 5),
        torch.randn(128, 300).relu(),
        torch.full((128, 3), 0.1),
        far,
        far @ torch.randn(6, 9),
        *planted(1),
        *planted(9),
        1e-8 * torch.randn(128, 4),
    ]
    sides = [ReliabilitySide.of(x) for x in layers]
    for x, left in zip(layers, sides, strict=True):
        for y, right in zip(layers, sides, strict=True):
            assert same(report_of_sides(left, right), reliability_report(x, y))


@pytest.mark.parametrize("n", [4, 5, 8, 21])
def test_few_items(n: int) -> None:
    x, y = torch.randn(2, n, 6)
    report = report_of_sides(ReliabilitySide.of(x), ReliabilitySide.of(y))
    assert same(report, reliability_report(x, y))
    with pytest.raises(UserError, match="has 3 rows"):
        ReliabilitySide.of(x[:3])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_side_of_a_gram_matrix_is_that_of_its_features(scale: float, offset: float) -> None:
    layers = [torch.randn(64, 9), torch.randn(64, 3000).relu(), *planted(1), *planted(5)]
    layers = [scale * (x[:64].double() + offset) for x in layers]
    sides = [ReliabilitySide.of(x) for x in layers]
    from_grams = [ReliabilitySide.of_gram(gram_of(x)) for x in layers]
    for i, x in enumerate(sides):
        for j, y in enumerate(sides):
            found = report_of_sides(from_grams[i], from_grams[j])
            expected = replace(report_of_sides(x, y), dims=(64, 64))
            assert same(found, expected, error=1e-8 * max(1.0, offset))


def test_equal_items_and_constant_layers_of_gram_matrices() -> None:
    x, y = torch.randn(2, 40, 12)
    x[20:] = x[:20]
    left, right = (ReliabilitySide.of_gram(gram_of(side)) for side in (x, y))
    # Float32 Gram matrices give the distance of equal items as rounding, not as 0.
    expected = reliability_report(x, y).rbf
    assert report_of_sides(left, right).rbf == pytest.approx(expected, abs=1e-5)
    constant = ReliabilitySide.of_gram(gram_of(torch.full((40, 3), 0.1)))
    report = report_of_sides(constant, right)
    assert report.reasons == ("All 40 rows of x are the same, so CKA is undefined.",)
    alike = ReliabilitySide.of_gram(gram_of(torch.eye(40)))
    assert math.isnan(report_of_sides(alike, right).debiased)
    with pytest.raises(UserError, match="has 3 rows"):
        ReliabilitySide.of_gram(torch.eye(3))


def test_the_matrix_says_how_far_it_is() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    said: list[tuple[int, int]] = []
    images = torch.randn(64, 8)
    reports = reliability_matrix(
        [net, net],
        [["0", "1", "2"], ["0", "2"]],
        (images,),
        progress=lambda done, count: said.append((done, count)),
    )
    assert said == [(2, 6), (4, 6), (6, 6)]
    assert [len(row) for row in reports] == [2, 2, 2]
    assert isinstance(reports[1][0], ReliabilityReport)
    with torch.no_grad():
        direct = reliability_report(net[:2](images), net(images))
    assert reports[1][1].debiased == pytest.approx(direct.debiased, abs=1e-5)
    assert reports[1][1].without_top == pytest.approx(direct.without_top, abs=1e-5)
    assert reports[1][1].verdict == direct.verdict


def test_a_pair_is_cheap_beside_its_sides() -> None:
    # Relative to the work of a side on the same machine: a limit in seconds would fail under load.
    def seconds(call: Any) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        return min(times)

    x = torch.randn(256, 256)
    side = ReliabilitySide.of(x)
    assert seconds(lambda: report_of_sides(side, side)) < seconds(lambda: ReliabilitySide.of(x)) / 2
    assert (
        seconds(lambda: report_of_sides(side, side)) < seconds(lambda: reliability_report(x, x)) / 5
    )

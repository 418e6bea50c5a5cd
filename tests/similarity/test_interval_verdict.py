from __future__ import annotations

import math

import pytest
import torch

from tutelage.similarity import reliability_report
from tutelage.similarity._interval_verdict import heed_interval
from tutelage.similarity._reliability_report import ReliabilityReport


@pytest.fixture(scope="module")
def trusted() -> ReliabilityReport:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 8, generator=generator)
    report = reliability_report(x, x + 0.3 * torch.randn(256, 8, generator=generator))
    assert report.verdict == "trust"
    return report


def test_a_wide_interval_is_not_trusted(trusted: ReliabilityReport) -> None:
    judged = heed_interval(trusted, -0.18, 1.73, 2)
    assert judged.verdict == "do not trust"
    assert judged.reasons == (
        "The interval over 2 batches is wide, [-0.18, 1.73]; compare more samples.",
    )
    assert heed_interval(trusted, 0.6, 0.9, 8).verdict == "caution"


@pytest.mark.parametrize(("low", "high"), [(0.8, 0.95), (math.nan, math.nan)])
def test_a_narrow_interval_and_none_change_nothing(
    trusted: ReliabilityReport, low: float, high: float
) -> None:
    assert heed_interval(trusted, low, high, 8) is trusted


def test_a_worse_verdict_stays_with_its_reasons(trusted: ReliabilityReport) -> None:
    few = reliability_report(torch.randn(12, 8), torch.randn(12, 8))
    assert few.verdict == "do not trust"
    judged = heed_interval(few, 0.3, 0.6, 2)
    assert judged.verdict == "do not trust"
    assert judged.reasons[:-1] == few.reasons

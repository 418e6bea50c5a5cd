"""The verdict on a CKA that comes with an interval over batches."""

from __future__ import annotations

import math
from dataclasses import replace

from tutelage.similarity._reliability_report import VERDICTS, ReliabilityReport

# Half the width of the interval. Where it is 0.1, layers that differ by less than that cannot be
# distinguished; where it is 0.3, the number says little more than that it is one.
HALF_WIDTH_LIMITS = (0.1, 0.3)


def heed_interval(
    report: ReliabilityReport, low: float, high: float, batches: int
) -> ReliabilityReport:
    """Return the report with a verdict that is no better than the interval allows.

    Args:
        report: of the rows, which knows no batches.
        low: lower end of the interval; NaN if there is none, which leaves the report as it is.
        high: its upper end.
        batches: how many it is from.
    """
    half = (high - low) / 2
    level = sum(half > limit for limit in HALF_WIDTH_LIMITS)
    if math.isnan(half) or not level:
        return report
    interval = f"[{low:.2f}, {high:.2f}]"
    sentence = f"The interval over {batches} batches is wide, {interval}; compare more samples."
    before = VERDICTS.index(report.verdict)
    # The sentence that nothing stands out is no longer true.
    reasons = report.reasons if before else ()
    return replace(report, verdict=VERDICTS[max(before, level)], reasons=(*reasons, sentence))

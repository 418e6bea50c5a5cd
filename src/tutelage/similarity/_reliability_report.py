"""What a reliability report holds, and the verdict that its numbers lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tutelage.similarity._weakest_subset import Translation

VERDICTS = ("trust", "caution", "do not trust")

# Limits between the three verdicts. Influence of rows: clean features (Gaussian, rectified, of low
# rank, in classes; n = 32 … 512) stayed below 0.22, from n = 64 on below 0.15, while planted rows
# reach 0.5 … 1.
INFLUENCE_LIMITS = (0.15, 0.3)  # change of CKA without the top rows
SPREAD_LIMITS = (0.03, 0.1)  # √2 / n, the sd of the debiased CKA of unrelated features
MAX_BIAS = 0.2  # biased minus debiased
MAX_KERNEL_GAP = 0.3  # biased linear against RBF at t = 1


@dataclass(frozen=True)
class ReliabilityReport:
    """The result of `reliability_report`; print it for a summary.

    Attributes:
        n: items.
        dims: columns of x and of y.
        effective: participation ratios, the effective numbers of dimensions.
        biased: the biased linear CKA.
        chance: its mean over random pairings of the rows.
        debiased: the debiased linear CKA: the number that the verdict is about.
        gap: biased - debiased.
        rbf: the biased RBF CKA by bandwidth t (`median="nonzero"`), from at most 2048 rows.
        shares: the top rows and their shares of the biased CKA, (row, share), largest first; 1/n
            would be even.
        without_top: the debiased CKA without these rows.
        without_top_biased: the biased CKA without them.
        sensitivity: for x and for y, the group of rows whose translation lowers CKA most.
        verdict: "trust", "caution" or "do not trust".
        reasons: one sentence for each finding that led to it.
    """

    n: int
    dims: tuple[int, int]
    effective: tuple[float, float]
    biased: float
    chance: float
    debiased: float
    gap: float
    rbf: Mapping[float, float]
    shares: tuple[tuple[int, float], ...]
    without_top: float
    without_top_biased: float
    sensitivity: tuple[Translation | None, Translation | None]
    verdict: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        head = (
            f"{self.verdict}: CKA {self.debiased:.3f} (debiased), {self.biased:.3f} "
            f"(biased, chance {self.chance:.3f}), n = {self.n}"
        )
        return "\n".join([head, *(f"- {reason}" for reason in self.reasons)])


def undefined_report(n: int, dims: tuple[int, int], constant_sides: list[str]) -> ReliabilityReport:
    """Return the report of a CKA that is undefined because some side does not vary."""
    sides = " and ".join(constant_sides)
    return ReliabilityReport(
        n=n,
        dims=dims,
        effective=(math.nan, math.nan),
        biased=math.nan,
        chance=math.nan,
        debiased=math.nan,
        gap=math.nan,
        rbf={},
        shares=(),
        without_top=math.nan,
        without_top_biased=math.nan,
        sensitivity=(None, None),
        verdict=VERDICTS[2],
        reasons=(f"All {n} rows of {sides} are the same, so CKA is undefined.",),
    )


def with_verdict(report: ReliabilityReport) -> ReliabilityReport:
    """Return the report with verdict and reasons: the worst of all findings decides."""
    findings = [*_influence_of_rows(report), *_bias(report), *_kernels(report)]
    worst = max((level for level, _ in findings), default=0)
    reasons = tuple(sentence for _, sentence in findings)
    if not reasons:
        reasons = (f"No row, bandwidth or bias stands out, and {report.n} rows are enough.",)
    return replace(report, verdict=VERDICTS[worst], reasons=reasons)


def _level(value: float, limits: tuple[float, float]) -> int:
    """Return the index of the verdict: how many limits the value exceeds."""
    return sum(value > limit for limit in limits)


def _influence_of_rows(report: ReliabilityReport) -> Iterator[tuple[int, str]]:
    changes = [report.debiased - report.without_top, report.biased - report.without_top_biased]
    sizes = [abs(change) for change in changes if not math.isnan(change)]
    level = _level(max(sizes, default=0.0), INFLUENCE_LIMITS)
    if level:
        yield (
            level,
            f"{len(report.shares)} of {report.n} rows sway it: without them CKA goes from "
            f"{report.debiased:.2f} to {report.without_top:.2f} (biased from {report.biased:.2f} "
            f"to {report.without_top_biased:.2f}).",
        )


def _bias(report: ReliabilityReport) -> Iterator[tuple[int, str]]:
    if math.isnan(report.debiased):
        yield 2, "The debiased CKA is undefined: all pairs of items are equally alike on one side."
    spread = math.sqrt(2) / report.n
    level = _level(spread, SPREAD_LIMITS)
    if level:
        yield (
            level,
            f"{report.n} rows are few: for unrelated features CKA would spread by {spread:.2f} "
            "around 0.",
        )
    if report.gap > MAX_BIAS:
        effective = " and ".join(f"{dimensions:.0f}" for dimensions in report.effective)
        yield (
            1,
            f"The biased value is {report.gap:.2f} too high: {report.n} rows are few for "
            f"{effective} effective dimensions, and chance alone gives {report.chance:.2f}; read "
            "the debiased one.",
        )


def _kernels(report: ReliabilityReport) -> Iterator[tuple[int, str]]:
    rbf = report.rbf[1.0]
    if abs(report.biased - rbf) > MAX_KERNEL_GAP:
        # The linear kernel weighs large distances most, the RBF kernel small ones.
        distances = "large" if report.biased > rbf else "small"
        yield (
            1,
            f"Linear and RBF kernels disagree ({report.biased:.2f} and {rbf:.2f}): what agrees are "
            f"the {distances} distances only.",
        )

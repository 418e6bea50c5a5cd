"""Can this CKA be trusted? One pair of representations, looked at from every side, with a verdict in words."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tutelage.similarity.checks import SimilarityWarning, as_rows, same_items, varies
from tutelage.similarity.cka import chance_level, cka, participation_ratio
from tutelage.similarity.gram import full_precision, gram_is_cheaper
from tutelage.similarity.kernels import RBFKernel
from tutelage.similarity.subset_translation import Translation, weakest_subset

BANDWIDTHS = (0.2, 0.5, 1.0)
MOST_ROWS = 2048  # of which the RBF kernels are formed
VERDICTS = ("trust", "caution", "do not trust")

# The limits between the three verdicts. Rows that sway: clean features (Gaussian, rectified, of low rank, in
# classes; n = 32 … 512) stayed below 0.22, from n = 64 on below 0.15, while planted rows reach 0.5 … 1.
SWAY = (0.15, 0.3)  # change of CKA without the top rows
SPREAD = (0.03, 0.1)  # √2 / n, the standard deviation of the debiased CKA of unrelated features
GAP = 0.2  # biased minus debiased
KERNELS = 0.3  # biased linear against RBF at t = 1


@dataclass(frozen=True)
class ReliabilityReport:
    """What `reliability_report` finds; print it for a summary.

    Attributes:
        n: items.
        dims: columns of x and of y.
        effective: participation ratios, the effective numbers of dimensions.
        biased: the biased linear CKA.
        chance: what it is on average when rows are paired at random.
        debiased: the debiased linear CKA: the number that the verdict is about.
        gap: biased - debiased.
        rbf: the biased RBF CKA by bandwidth t (`median="nonzero"`), from at most 2048 rows.
        shares: the top rows and their shares of the biased CKA, (row, share), largest first; 1/n would be even.
        without_top: the debiased CKA without these rows.
        without_top_biased: the biased CKA without them.
        sensitivity: for x and for y, the group of rows whose translation hurts CKA most.
        verdict: "trust", "caution" or "do not trust".
        reasons: one sentence for each thing that led to it.
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
            f"{self.verdict}: CKA {self.debiased:.3f} (debiased), {self.biased:.3f} (biased, chance {self.chance:.3f})"
        )
        return "\n".join([f"{head}, n = {self.n}", *(f"- {reason}" for reason in self.reasons)])


def reliability_report(
    x: Tensor, y: Tensor, *, top: int | None = None, labels: Tensor | None = None
) -> ReliabilityReport:
    """Return what a CKA of x and y rests on, and whether to trust it.

    It looks at the bias (rows against effective dimensions, chance level, biased against debiased), at the
    leverage of single rows (row shares r_i = x_iᵀ (XcᵀYc) y_i / ‖XcᵀYc‖², and CKA without the largest), at
    the spread that so few rows leave, at the RBF kernel, and at how far moving a group of rows brings CKA
    down (`weakest_subset`).

    Source: diagnostics derived for this library from M. Davari et al., ICLR 2023; the limits of the verdicts
    are ours, see the constants of this file.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> x = torch.randn(256, 32)
    >>> reliability_report(x, x @ torch.randn(32, 8)).verdict
    'trust'
    >>> x, y = torch.randn(2, 256, 32)
    >>> x[:9], y[:9] = x[:9] + 30, y[:9] + 30
    >>> report = reliability_report(x, y)
    >>> report.verdict, report.debiased > 0.9, report.without_top < 0.1
    ('do not trust', True, True)

    Args:
        x: (n, ...), floating; further dimensions are flattened.
        y: (n, ...), the same items in the same order.
        top: how many rows to leave out; None takes 5 or 5 % of n, the larger, but at most a quarter of n.
        labels: (n,), integers: groups of rows that may move together; None moves single rows.

    Returns:
        A `ReliabilityReport` of plain numbers; NaN where a side does not vary, and the verdict says so.

    Raises:
        UserError: n differs or is below 4; 1-D, empty, integer, NaN or infinite features.
    """
    one, two = as_rows(x.detach(), "x", 4), as_rows(y.detach(), "y", 4)
    same_items(one, two)
    n, dims = len(one), (one.shape[1], two.shape[1])
    dead = [name for name, side in (("x", x), ("y", y)) if not varies(side)]
    if dead:
        nan = math.nan
        reason = f"All {n} rows of {' and '.join(dead)} are the same, so CKA is undefined."
        return ReliabilityReport(
            n, dims, (nan, nan), nan, nan, nan, nan, {}, (), nan, nan, (None, None), VERDICTS[2], (reason,)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimilarityWarning)  # the reasons say it
        biased, debiased = (float(cka(one, two, estimator=name)) for name in ("biased", "debiased"))
        shares = row_shares(one, two)
        top = min(max(5, n // 20), n // 4) if top is None else top
        rows = shares.abs().argsort(descending=True)[: min(top, n - 4)]
        rest = torch.ones(n, dtype=torch.bool, device=rows.device).index_fill(0, rows, False)
        without = [float(cka(one[rest], two[rest], estimator=name)) for name in ("debiased", "biased")]
        report = ReliabilityReport(
            n=n,
            dims=dims,
            effective=(float(participation_ratio(one)), float(participation_ratio(two))),
            biased=biased,
            chance=float(chance_level(one, two)),
            debiased=debiased,
            gap=biased - debiased,
            rbf=_rbf(one, two),
            shares=tuple(zip(rows.tolist(), shares[rows].tolist(), strict=True)),
            without_top=without[0],
            without_top_biased=without[1],
            sensitivity=(weakest_subset(one, labels), weakest_subset(two, labels)),
            verdict="",
            reasons=(),
        )
    return _judged(report)


def row_shares(x: Tensor, y: Tensor) -> Tensor:
    """Return each row's share of the biased CKA, r_i = x_iᵀ (XcᵀYc) y_i / ‖XcᵀYc‖² of centred rows; they sum to 1.

    >>> row_shares(torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[1.0], [-1.0], [0.0]])).tolist()
    [0.5, 0.5, 0.0]

    Args:
        x: (n, ...), floating.
        y: (n, ...), the same items.

    Returns:
        (n,) float64; 1/n each would be even.
    """
    one, two = as_rows(x, "x"), as_rows(y, "y")
    same_items(one, two)
    with full_precision(one.device):
        one, two = one - one.mean(0), two - two.mean(0)
        if gram_is_cheaper(len(one), (one.shape[1], two.shape[1])):
            shares = ((one @ one.mT) * (two @ two.mT)).sum(1)
        else:
            shares = ((one @ (one.mT @ two)) * two).sum(1)
        return shares / shares.sum()


def _rbf(x: Tensor, y: Tensor) -> dict[float, float]:
    step = -(-len(x) // MOST_ROWS)
    one, two = x[::step], y[::step]
    return {t: float(cka(one, two, kernel=RBFKernel(t, "nonzero"), estimator="biased")) for t in BANDWIDTHS}


def _judged(report: ReliabilityReport) -> ReliabilityReport:
    """Return the report with its verdict: the worst of all findings."""
    findings = [*_leverage(report), *_bias(report), *_kernels(report)]
    worst = max((level for level, _ in findings), default=0)
    told = tuple(sentence for _, sentence in findings)
    reasons = told or (f"No row, bandwidth or bias stands out, and {report.n} rows are enough.",)
    return replace(report, verdict=VERDICTS[worst], reasons=reasons)


def _level(value: float, limits: tuple[float, float]) -> int:
    return sum(value > limit for limit in limits)


def _leverage(report: ReliabilityReport) -> Iterator[tuple[int, str]]:
    changes = [report.debiased - report.without_top, report.biased - report.without_top_biased]
    level = _level(max((abs(change) for change in changes if not math.isnan(change)), default=0.0), SWAY)
    if level:
        yield (
            level,
            f"{len(report.shares)} of {report.n} rows sway it: without them CKA goes from {report.debiased:.2f} to "
            f"{report.without_top:.2f} (biased from {report.biased:.2f} to {report.without_top_biased:.2f}).",
        )


def _bias(report: ReliabilityReport) -> Iterator[tuple[int, str]]:
    if math.isnan(report.debiased):
        yield 2, "The debiased CKA is undefined: all pairs of items are equally alike on one side."
    spread = math.sqrt(2) / report.n
    if level := _level(spread, SPREAD):
        yield level, f"{report.n} rows are few: for unrelated features CKA would spread by {spread:.2f} around 0."
    if report.gap > GAP:
        effective = " and ".join(f"{dimensions:.0f}" for dimensions in report.effective)
        yield (
            1,
            f"The biased value is {report.gap:.2f} too high: {report.n} rows are few for {effective} effective "
            f"dimensions, and chance alone gives {report.chance:.2f}; read the debiased one.",
        )


def _kernels(report: ReliabilityReport) -> Iterator[tuple[int, str]]:
    rbf = report.rbf[1.0]
    if abs(report.biased - rbf) > KERNELS:
        which = "large" if report.biased > rbf else "small"
        yield (
            1,
            f"Linear and RBF kernels disagree ({report.biased:.2f} and {rbf:.2f}): what agrees are the {which} "
            "distances only.",
        )

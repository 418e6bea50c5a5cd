"""The result of a CKA accumulator: values with jackknife intervals and permutation p-values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from tutelage.similarity._cka_state import GROUPS, State


@dataclass(frozen=True, eq=False)
class CKAResult:
    """CKA of every pair of layers: rows are left layers, columns right ones; float64, on the CPU.

    Attributes:
        value: (L₁, L₂), linear, centered, debiased; not clamped, so it may be slightly negative.
        sd: (L₁, L₂), standard deviation by the jackknife over batches; NaN for a single batch.
        low: (L₁, L₂), value - t · sd, the lower end of the interval at `confidence`.
        high: (L₁, L₂), value + t · sd, its upper end.
        p_value: (L₁, L₂), the share of permuted pairings with at least this value; None without
            permutations.
        samples: how many samples went in.
        batches: how many batches went in.
        skipped: batches of fewer than 4 rows, which were left out.
        skipped_samples: the rows in them.
        left: names of the left layers.
        right: names of the right layers.
        degenerate: layers that never varied, as "left: name" or "right: name"; their cells are NaN.
        confidence: of the interval.
        ids: hash of the samples' ids, the same in every order; None if some came without.
    """

    value: Tensor
    sd: Tensor
    low: Tensor
    high: Tensor
    p_value: Tensor | None
    samples: int
    batches: int
    skipped: int
    skipped_samples: int
    left: tuple[str, ...]
    right: tuple[str, ...]
    degenerate: tuple[str, ...]
    confidence: float
    ids: str | None


def summary(
    state: State, left: tuple[str, ...], right: tuple[str, ...] | None, confidence: float
) -> CKAResult:
    """Return the result of a state.

    Args:
        state: sums and counts.
        left: names of the left layers.
        right: names of the right layers; None if the left side is compared with itself.
        confidence: of the intervals.
    """
    counts = state.counts
    value = ratio(state.xy.sum(0), state.xx.sum(0), state.yy.sum(0))
    sd = jackknife(state)
    groups = min(counts.batches, GROUPS)
    quantile = student_quantile((1 + confidence) / 2, groups - 1) if groups > 1 else math.nan
    margin = sd * quantile
    degenerate = _degenerate("left", left, state.xx)
    if right is not None:
        degenerate += _degenerate("right", right, state.yy)
    return CKAResult(
        value=value,
        sd=sd,
        low=value - margin,
        high=value + margin,
        p_value=_p_value(state, value) if len(state.null) else None,
        samples=counts.samples,
        batches=counts.batches,
        skipped=counts.skipped,
        skipped_samples=counts.skipped_samples,
        left=left,
        right=left if right is None else right,
        degenerate=degenerate,
        confidence=confidence,
        ids=counts.ids_hash(),
    )


def ratio(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    """Return xy / √(xx yy) for all pairs, NaN where a side has no variation.

    >>> ratio(torch.tensor([[3.0, 0.0]]), torch.tensor([9.0]), torch.tensor([4.0, 0.0]))
    tensor([[0.5000,    nan]])

    Args:
        xy: (..., L₁, L₂).
        xx: (..., L₁).
        yy: (..., L₂).
    """
    return xy / (xx.sqrt()[..., :, None] * yy.sqrt()[..., None, :])


def jackknife(state: State) -> Tensor:
    """Return the standard deviation of every cell, from its values without one group of batches.

        sd² = (g - 1)/g Σ_j (θ_(j) - mean θ_(j))²

    Groups are single batches up to `GROUPS` of them. Short batches weigh little, as in the value.
    """
    groups = min(state.counts.batches, GROUPS)
    if groups < 2:
        return torch.full_like(state.xy[0], math.nan)
    values = ratio(
        _without_each_group(state.xy, groups),
        _without_each_group(state.xx, groups),
        _without_each_group(state.yy, groups),
    )
    return (values - values.mean(0)).square().sum(0).mul((groups - 1) / groups).sqrt()


def student_quantile(p: float, df: int) -> float:
    """Return the quantile of Student's t: exact for 1 and 2 degrees of freedom, else within 0.2 %.

    Source: Abramowitz and Stegun, 26.7.5 (the Cornish-Fisher series).

    >>> [round(student_quantile(0.975, df), 2) for df in (1, 2, 3, 10, 1000)]
    [12.71, 4.3, 3.18, 2.23, 1.96]

    Args:
        p: between 0 and 1, ends excluded.
        df: degrees of freedom, at least 1.
    """
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    series = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum((term / float(df) ** power for power, term in enumerate(series)), 0.0)


def _without_each_group(sums: Tensor, groups: int) -> Tensor:
    """Return the total without one group at a time, (groups, ...)."""
    return (sums.sum(0) - sums)[:groups]


def _p_value(state: State, value: Tensor) -> Tensor:
    """Return (1 + permuted sums that reach the observed one) / (1 + permutations)."""
    observed = state.xy.sum(0)
    p = (1 + (state.null >= observed).sum(0)).double() / (1 + len(state.null))
    return p.masked_fill(value.isnan(), math.nan)


def _degenerate(side: str, names: tuple[str, ...], own: Tensor) -> tuple[str, ...]:
    """Return the layers whose sum with themselves is 0."""
    totals = own.sum(0).tolist()
    return tuple(f"{side}: {name}" for name, total in zip(names, totals, strict=True) if total <= 0)

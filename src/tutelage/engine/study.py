"""Many runs, one table: mean and spread over seeds, and differences to the baseline paired by seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

BASELINE = "alone"


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds; the deviation of one value is NaN."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise values.

        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, sd=1.0)
        """
        return cls(fmean(values), stdev(values) if len(values) > 1 else float("nan"))


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's confidence interval of the mean of paired differences.

    >>> low, high = interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    count = len(differences)
    if count < 2:
        return float("nan"), float("nan")
    from scipy.stats import t  # slow to import

    half = float(t.ppf(0.5 + level / 2, count - 1)) * stdev(differences) / count**0.5
    return fmean(differences) - half, fmean(differences) + half


def collect(folder: Path, methods: Sequence[str], seeds: int) -> dict[str, dict[int, dict[str, Any]]]:
    """Return metrics by method and seed from `folder/<method>/seed<seed>/metrics.json`, of finished runs."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for method in methods:
        runs = {seed: folder / method / f"seed{seed}" / "metrics.json" for seed in range(seeds)}
        found[method] = {seed: json.loads(path.read_text()) for seed, path in runs.items() if path.exists()}
    return found


def summarise(runs: Mapping[str, Mapping[int, Mapping[str, Any]]], select: str = "top1") -> dict[str, Any]:
    """Return each method's spread of every test figure, and its paired difference to the baseline in `select`."""
    summary: dict[str, Any] = {}
    for method, by_seed in runs.items():
        if not by_seed:
            continue
        results = list(by_seed.values())
        row: dict[str, Any] = {
            "seeds": sorted(by_seed),
            "test": {name: vars(Spread.of([r["test"][name] for r in results])) for name in results[0]["test"]},
            "last": {name: vars(Spread.of([r["last"]["test"][name] for r in results])) for name in results[0]["test"]},
            "seconds": vars(Spread.of([r["seconds"] for r in results])),
            "parameters": results[0]["parameters"],
        }
        shared = sorted(set(by_seed) & set(runs.get(BASELINE, {}))) if method != BASELINE else []
        if shared:
            baseline = runs[BASELINE]
            differences = [by_seed[s]["test"][select] - baseline[s]["test"][select] for s in shared]
            found = {"mean": fmean(differences), "interval95": interval(differences), "pairs": differences}
            row["difference"] = {"figure": select, **found}
        summary[method] = row
    return summary

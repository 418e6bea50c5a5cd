"""Many runs, one table: mean and spread over seeds, and differences to the baseline paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tutelage.engine.files import read_json

BASELINE = "alone"
MEMORY = ("peak_mib", "peak_gpu_mib")  # of a run's own process, in memory.json


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
    """Return metrics by method and seed from `folder/<method>/seed<seed>/metrics.json`, of finished runs.

    What a run's process needed of memory is taken in from memory.json where it lies beside.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for method in methods:
        runs = {seed: folder / method / f"seed{seed}" for seed in range(seeds)}
        found[method] = {seed: _figures(run) for seed, run in runs.items() if (run / "metrics.json").exists()}
    return found


def _figures(run: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for path in (run / "metrics.json", run / "memory.json"):
        figures |= read_json(path, "remove it and give the command again") if path.exists() else {}
    return figures


def summarise(runs: Mapping[str, Mapping[int, Mapping[str, Any]]], select: str = "top1") -> dict[str, Any]:
    """Return each method's spread of every figure, its cost, and its difference to the baseline, paired by seed.

    "test" is of the epoch that the recipe keeps, "validation" of the best one: weights are chosen by that alone.

    Args:
        runs: metrics by method and seed; see `collect`.
        select: the figure that methods are compared in.
    """
    summary: dict[str, Any] = {}
    for method, by_seed in runs.items():
        if not by_seed:
            continue
        results = list(by_seed.values())
        row: dict[str, Any] = {
            "seeds": sorted(by_seed),
            "test": _spreads([r["test"] for r in results]),
            "last": _spreads([r["last"]["test"] for r in results]),
            "best": _spreads([r["best"]["test"] for r in results]),
            "validation": _spreads([r["validation"] for r in results]),
            "best_epoch": vars(Spread.of([r["best"]["epoch"] for r in results])),
            "seconds": vars(Spread.of([r["seconds"] for r in results])),
            "parameters": results[0]["parameters"],
            "cost": _cost(by_seed, runs.get(BASELINE, {})),
        }
        shared = sorted(set(by_seed) & set(runs.get(BASELINE, {}))) if method != BASELINE else []
        if shared:
            baseline = runs[BASELINE]
            differences = [by_seed[s]["test"][select] - baseline[s]["test"][select] for s in shared]
            found = {"mean": fmean(differences), "interval95": interval(differences), "pairs": differences}
            row["difference"] = {"figure": select, **found}
        summary[method] = row
    return summary


def _spreads(figures: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the spread of every figure that the first run has, by its name."""
    return {name: vars(Spread.of([one[name] for one in figures])) for name in figures[0]}


def _cost(runs: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the time of a step, its ratio to the baseline's, and the extra memory; paired by seed, None if unknown."""
    times = {seed: _step_ms(run) for seed, run in runs.items()}
    ratios = [time / _step_ms(baseline[seed]) for seed, time in times.items() if seed in baseline]
    extra = [
        {name: run[name] - baseline[seed][name] for name in MEMORY if name in run and name in baseline[seed]}
        for seed, run in runs.items()
        if seed in baseline
    ]
    cost: dict[str, Any] = {"step_ms": vars(Spread.of(list(times.values())))}
    cost["step_ratio"] = vars(Spread.of(ratios)) if ratios else None
    for name in MEMORY:
        found = [one[name] for one in extra if name in one]
        cost[f"extra_{name}"] = vars(Spread.of(found)) if found else None
    return cost


def _step_ms(run: Mapping[str, Any]) -> float:
    return float(run["seconds"]) / max(int(run["steps"]), 1) * 1e3

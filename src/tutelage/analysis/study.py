"""Statistics of a study: mean and deviation over seeds, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tutelage.analysis.formatting import finite
from tutelage.errors import UserError
from tutelage.io import read_json

BASELINE = "baseline"
PEAK_MEMORY = ("peak_mib", "peak_gpu_mib")  # of a run's own process, in memory.json

FIX = "remove it and give the command again"

Run = Mapping[str, Any]  # what metrics.json and memory.json of a run hold


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation over seeds; the deviation of one value is NaN.

    Both are NaN if a value is not finite: what one seed lacks has no mean over the seeds.
    """

    mean: float
    std: float

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd:
        """Summarize values.

        >>> MeanStd.of([1.0, 2.0, 3.0])
        MeanStd(mean=2.0, std=1.0)
        """
        if not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan)
        return cls(fmean(values), stdev(values) if len(values) > 1 else math.nan)


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's confidence interval of the mean of paired differences.

    >>> low, high = interval([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    count = len(differences)
    if count < 2 or not all(map(math.isfinite, differences)):
        return math.nan, math.nan
    from scipy.stats import t  # slow to import

    half = float(t.ppf(0.5 + level / 2, count - 1)) * stdev(differences) / count**0.5
    return fmean(differences) - half, fmean(differences) + half


def collect(
    folder: Path, methods: Sequence[str], seeds: int
) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the metrics of the finished runs of a study, by method and seed.

    Args:
        folder: of the study; a run lies in `<method>/seed<seed>`, its metrics in metrics.json, and
            the peak memory of its process, if measured, in memory.json.
        methods: names of the methods.
        seeds: seeds 0 … N-1.
    """
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for method in methods:
        runs[method] = {}
        for seed in range(seeds):
            run = folder / method / f"seed{seed}"
            if (run / "metrics.json").exists():
                runs[method][seed] = _read_run(run)
    return runs


def _read_run(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for path in (run / "metrics.json", run / "memory.json"):
        if path.exists():
            try:
                content: Any = read_json(path, FIX)
            except RecursionError:
                raise UserError(f"{path} is nested too deeply to be ours; {FIX}") from None
            if not isinstance(content, Mapping):
                raise UserError(f"{path} holds no record of a run but {content!r:.40}; {FIX}")
            metrics |= content
    return metrics


def check_runs(runs: Mapping[str, Mapping[int, Run]], monitor: str, folder: Path) -> None:
    """Check that the metrics of all runs are what `summarize` needs.

    Args:
        runs: metrics by method and seed; see `collect`.
        monitor: the metric that methods are compared in.
        folder: of the study, for the message.

    Raises:
        UserError: If a run lacks a value, has one of another kind, or lacks a metric that another
            seed of its method has; the message names its file.
    """
    for method, by_seed in runs.items():
        for seed, run in by_seed.items():
            first = next(iter(by_seed.values()))
            problem = _problem(run, first, monitor)
            if problem is not None:
                path = folder / method / f"seed{seed}" / "metrics.json"
                raise UserError(f"{path} {problem}; it was edited or is of another version, {FIX}")


def _problem(run: Run, first: Run, monitor: str) -> str | None:
    """Return what is wrong with the metrics of a run, beside those of its method's first run."""
    try:
        for name, values, expected in zip(
            ("test", "last", "best", "validation"), _splits(run), _splits(first), strict=True
        ):
            for metric in dict.fromkeys([*expected, *([] if name == "validation" else [monitor])]):
                if metric not in values:
                    return f"has no {metric} among its {name} metrics"
                _number(values[metric])
        numbers = [run["seconds"], run["steps"], run["best"]["epoch"]]
        numbers += [run["parameters"][part] for part in ("student", "method")]
    except KeyError as error:
        return f"has no {error}"
    except (AttributeError, TypeError, ValueError) as error:
        return f"is not as tutelage writes it ({error})"
    if any(finite(number) is None for number in numbers):
        return "has no number where seconds, steps, epoch or parameters should be"
    return None


def _splits(run: Run) -> list[Mapping[str, Any]]:
    return [run["test"], run["last"]["test"], run["best"]["test"], run["validation"]]


def _number(value: Any) -> float:
    """Return a metric as a number; null, as JSON without NaN has it, is NaN."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r:.40} is no number")
    return float(value)


def summarize(
    runs: Mapping[str, Mapping[int, Run]], monitor: str = "top1"
) -> dict[str, dict[str, Any]]:
    """Return each method's statistics over seeds, its cost, and its difference to the baseline.

    "test" is of the epoch that the recipe ships. "validation" is of the best epoch, and the only
    metrics to choose hyper-parameters by. Differences are paired by seed.

    Args:
        runs: metrics by method and seed; see `collect`.
        monitor: the metric that methods are compared in.
    """
    baseline = runs.get(BASELINE, {})
    summary: dict[str, dict[str, Any]] = {}
    for method, by_seed in runs.items():
        if not by_seed:
            continue
        results = list(by_seed.values())
        row: dict[str, Any] = {
            "seeds": sorted(by_seed),
            "test": _by_metric([run["test"] for run in results]),
            "last": _by_metric([run["last"]["test"] for run in results]),
            "best": _by_metric([run["best"]["test"] for run in results]),
            "validation": _by_metric([run["validation"] for run in results]),
            "best_epoch": _mean_std([run["best"]["epoch"] for run in results]),
            "seconds": _mean_std([run["seconds"] for run in results]),
            "parameters": results[0]["parameters"],
            "cost": _cost(by_seed, baseline),
        }
        shared = sorted(set(by_seed) & set(baseline))
        if method != BASELINE and shared:
            differences = [
                _number(by_seed[seed]["test"][monitor]) - _number(baseline[seed]["test"][monitor])
                for seed in shared
            ]
            row["difference"] = {
                "metric": monitor,
                "mean": MeanStd.of(differences).mean,
                "interval95": interval(differences),
                "pairs": differences,
            }
        summary[method] = row
    return summary


def _mean_std(values: Sequence[float]) -> dict[str, float] | None:
    return asdict(MeanStd.of(values)) if values else None


def _by_metric(results: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float] | None]:
    """Return the statistics of every metric that the first run has."""
    return {name: _mean_std([_number(metrics[name]) for metrics in results]) for name in results[0]}


def _cost(runs: Mapping[int, Run], baseline: Mapping[int, Run]) -> dict[str, Any]:
    """Return the time of a step, its ratio to the baseline's, and the extra memory.

    The last two are paired by seed, and None if unknown.
    """
    shared = [seed for seed in runs if seed in baseline]
    ratios = [
        _step_ms(runs[seed]) / _step_ms(baseline[seed])
        for seed in shared
        if _step_ms(baseline[seed]) > 0.0
    ]
    cost: dict[str, Any] = {
        "step_ms": _mean_std([_step_ms(run) for run in runs.values()]),
        "step_ratio": _mean_std(ratios),
    }
    for key in PEAK_MEMORY:
        measured = [
            seed
            for seed in shared
            if finite(runs[seed].get(key)) is not None
            and finite(baseline[seed].get(key)) is not None
        ]
        cost[f"extra_{key}"] = _mean_std(
            [runs[seed][key] - baseline[seed][key] for seed in measured]
        )
    return cost


def _step_ms(run: Run) -> float:
    return float(run["seconds"]) / max(int(run["steps"]), 1) * 1e3

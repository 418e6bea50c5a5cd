"""Fair timing: all cases interleaved in random order inside each round, process time, ratios within a round."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tutelage.engine import provenance

RESULTS = Path(__file__).parent / "results"


def interleaved(
    cases: Mapping[str, Callable[[], object]], rounds: int, calls: int | Mapping[str, int] = 1
) -> dict[str, list[float]]:
    """Return CPU seconds of one call for every case and round, after one warm-up round.

    `calls` is how often a case is called in a row, for all cases or for each by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for index in range(rounds + 1):
        random.Random(index).shuffle(order)
        for name in order:
            gc.collect()
            gc.disable()
            count = calls if isinstance(calls, int) else calls[name]
            started = time.process_time()
            for _ in range(count):
                cases[name]()
            spent = (time.process_time() - started) / count
            gc.enable()
            if index:
                seconds[name].append(spent)
    return seconds


def peak_mib() -> float:
    """Return the most memory that this process had; unlike getrusage's figure it does not start at the parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def ratio(over: list[float], under: list[float]) -> dict[str, float]:
    """Return the median and the quartiles of the per-round ratios of two cases."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {"median": median(ratios), "quartile1": low, "quartile3": high}


def write_result(name: str, content: Mapping[str, Any], out: str | None = None) -> Path:
    """Write a result with its provenance to benchmarks/results/<name>.json, or to `out`."""
    path = RESULTS / f"{name}.json" if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"provenance": provenance(), **content}, indent=1) + "\n")
    temporary.replace(path)
    return path

"""Fair timing: all cases in random order inside each round, CPU time, ratios within a round."""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tutelage.provenance import provenance

RESULTS = Path(__file__).parent / "results"


def argument_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return the parser of a benchmark, with the options `--rounds` and `--out`.

    Args:
        description: what is measured; the docstring of the benchmark.
        rounds: the default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="at least 2; default %(default)s"
    )
    parser.add_argument("--out", help="file of the result; default: in benchmarks/results")
    return parser


def interleaved(
    cases: Mapping[str, Callable[[], object]], rounds: int, calls: int | Mapping[str, int] = 1
) -> dict[str, list[float]]:
    """Return the CPU seconds of one call for every case and round, after one warm-up round.

    Args:
        cases: what to time, by name.
        rounds: how often; each round runs all cases in another order.
        calls: how often a case is called in a row, for all cases or for each by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for index in range(rounds + 1):
        random.Random(index).shuffle(order)
        for name in order:
            gc.collect()
            gc.disable()
            count = calls if isinstance(calls, int) else calls[name]
            start = time.process_time()
            for _ in range(count):
                cases[name]()
            spent = (time.process_time() - start) / count
            gc.enable()
            if index:
                seconds[name].append(spent)
    return seconds


def median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return median(seconds) * 1e3


def ratio(over: list[float], under: list[float]) -> dict[str, float]:
    """Return the median and the quartiles of the per-round ratios of two cases."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {"median": median(ratios), "quartile1": low, "quartile3": high}


def peak_mib() -> float:
    """Return the peak memory of this process.

    Unlike the figure of getrusage it does not start at the peak of the parent.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def result_path(name: str, out: str | None = None) -> Path:
    """Return the file of a result: `out`, or `name` in benchmarks/results."""
    return RESULTS / f"{name}.json" if out is None else Path(out)


def write_result(name: str, content: Mapping[str, Any], out: str | None = None) -> Path:
    """Write a result with its provenance, and return its path.

    Args:
        name: of the file in benchmarks/results, without .json.
        content: what was measured.
        out: another file.
    """
    path = result_path(name, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"provenance": provenance(), **content}, indent=1) + "\n")
    temporary.replace(path)
    return path

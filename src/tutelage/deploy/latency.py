"""How long one call of a network takes on this machine, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

BATCHES = (1, 32)
MIN_CALLS = 10
MAX_CALLS = 100
MAX_SECONDS = 2.0  # of one network and batch, beyond the first calls

Call = Callable[[int], Any]  # makes a call with so many images
Medians = dict[str, dict[str, float]]  # milliseconds by network and batch


def latencies(networks: Mapping[str, Call], batches: tuple[int, ...]) -> Medians:
    """Return the median milliseconds of a call, by network and batch.

    The networks take turns, so that whatever else the machine does meets all of them.

    Args:
        networks: by name; each makes a call.
        batches: numbers of images in a call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(networks, batches)
    finally:
        torch.set_num_threads(threads)


def _measured(networks: Mapping[str, Call], batches: tuple[int, ...]) -> Medians:
    results: Medians = {name: {} for name in networks}
    for batch in batches:
        times: dict[str, list[float]] = {name: [] for name in networks}
        for run in networks.values():
            run(batch)  # the first call allocates
        until = time.perf_counter() + MAX_SECONDS * len(networks)
        for number in range(MAX_CALLS):
            if number >= MIN_CALLS and time.perf_counter() > until:
                break
            for name, run in networks.items():
                start = time.perf_counter()
                run(batch)
                times[name].append(1000 * (time.perf_counter() - start))
        for name, values in times.items():
            results[name][str(batch)] = round(median(values), 4)
    return results

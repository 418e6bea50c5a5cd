"""The CKA part alone, features given: time of one batch for all pairs of layers, and its error against float64.

Many layers in Gram space (150 a side, 64 items, 512 columns), as features, far from the origin, and as ready Grams;
many items in feature space (4096, 64 columns) against the same sums from Gram matrices. One thread, CPU time, cases
interleaved in random order inside each round; `benchmarks.cka_networks` has whole networks and other tools.

python -m benchmarks.cka_speed [--rounds 9] [--out FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleaved, ratio, write_result
from tutelage.similarity import CKAMatrix, gram_of
from tutelage.similarity.all_pairs import gram_sums
from tutelage.similarity.layer_gram import layer_grams

Case = Callable[[], object]


def features(count: int, n: int, d: int, base: Tensor) -> list[Tensor]:
    """Return rectified features of layers that share some of what they see."""
    return [(base @ torch.randn(d, d) / d**0.5 + 0.5 * torch.randn(n, d)).relu() for _ in range(count)]


def matrix_of(left: list[Tensor], right: list[Tensor]) -> CKAMatrix:
    """Return an accumulator that has seen one batch."""
    matrix = CKAMatrix([f"l{i}" for i in range(len(left))], [f"r{i}" for i in range(len(right))])
    matrix.update(left, right)
    return matrix


def error(left: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest difference of the values to those of float64 features."""
    exact = matrix_of([x.double() for x in left], [y.double() for y in right]).compute().value
    return float((matrix_of(left, right).compute().value - exact).abs().max())


def raw_grams(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    """Do the least that any tool has to do: one float32 Gram a layer."""
    return [x @ x.mT for x in (*left, *right)]


def many_layers(rounds: int) -> dict[str, Any]:
    """Return milliseconds for a batch of 150 × 150 layers."""
    count, n, d = 150, 64, 512
    base = torch.randn(n, d)
    left, right = features(count, n, d, base), features(count, n, d, base)
    far = [x + 10 for x in left], [y + 10 for y in right]
    grams = [gram_of(x) for x in left], [gram_of(y) for y in right]
    matrix = matrix_of(left, right)
    cases: dict[str, Case] = {
        "floor: one Gram a layer": lambda: raw_grams(left, right),
        "features": lambda: matrix.update(left, right),
        "features, offset 10": lambda: matrix.update(*far),
        "Gram matrices": lambda: matrix.update_grams(*grams),
    }
    seconds = interleaved(cases, rounds, calls=3)
    return {
        "layers, items, columns": [count, n, d],
        "milliseconds": {name: {"median": median(s) * 1e3, "least": min(s) * 1e3} for name, s in seconds.items()},
        "error": {"features": error(left, right), "features, offset 10": error(*far)},
    }


def many_items(count: int, rounds: int) -> dict[str, Any]:
    """Return how much faster feature space is for many items and few columns."""
    n, d = 4096, 64
    base = torch.randn(n, d)
    left, right = features(count, n, d, base), features(count, n, d, base)
    matrix, orders = matrix_of(left, right), torch.empty(0, n, dtype=torch.int64)
    cases: dict[str, Case] = {
        "floor: one product": lambda: torch.cat(left, 1).mT @ torch.cat(right, 1),
        "features": lambda: matrix.update(left, right),
        "Gram space": lambda: gram_sums(layer_grams([*left, *right]), len(left), orders),
    }
    seconds = interleaved(cases, rounds)
    return {
        "layers, items, columns": [count, n, d],
        "milliseconds": {name: {"median": median(s) * 1e3, "least": min(s) * 1e3} for name, s in seconds.items()},
        "Gram space / features": ratio(seconds["Gram space"], seconds["features"]),
        "features / floor": ratio(seconds["features"], seconds["floor: one product"]),
        "error": error(left, right),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    content = {
        "many layers": many_layers(arguments.rounds),
        "many items": [many_items(count, max(3, arguments.rounds // 3)) for count in (1, 5, 20)],
        "rounds": arguments.rounds,
    }
    print(write_result("cka_speed", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()

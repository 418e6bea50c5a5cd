"""The CKA part alone, with ready features: time of one batch for all pairs of layers, and errors.

Many layers in Gram space: 150 a side, 64 items, 512 columns, as features, far from the origin, and
as ready Gram matrices. Many items in feature space: 4096 items, 64 columns, against the same sums
from Gram matrices. One thread; errors are against float64. `benchmarks.cka_networks` has whole
networks and other tools.

python -m benchmarks.cka_speed [--rounds 9] [--out FILE]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage.similarity import CKAMatrix, gram_of
from tutelage.similarity._all_pairs import gram_sums
from tutelage.similarity._layer_gram import layer_grams

Case = Callable[[], object]


def random_layers(count: int, base: Tensor) -> list[Tensor]:
    """Return rectified features of layers that have a part in common.

    Args:
        count: how many layers.
        base: (items, columns), the common part.
    """
    n, d = base.shape
    return [
        (base @ torch.randn(d, d) / d**0.5 + 0.5 * torch.randn(n, d)).relu() for _ in range(count)
    ]


def matrix_of(left: Sequence[Tensor], right: Sequence[Tensor]) -> CKAMatrix:
    """Return an accumulator that has seen one batch."""
    matrix = CKAMatrix([f"l{i}" for i in range(len(left))], [f"r{i}" for i in range(len(right))])
    matrix.update(left, right)
    return matrix


def error(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Return the largest difference of the values to those of float64 features."""
    exact = matrix_of([x.double() for x in left], [y.double() for y in right]).compute().value
    return float((matrix_of(left, right).compute().value - exact).abs().max())


def plain_grams(left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
    """Return one float32 Gram matrix a layer, which is what any tool must compute."""
    return [x @ x.mT for x in (*left, *right)]


def milliseconds(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the median and the smallest time of every case."""
    return {
        name: {"median": median_ms(values), "least": min(values) * 1e3}
        for name, values in seconds.items()
    }


def many_layers(rounds: int) -> dict[str, Any]:
    """Return milliseconds for a batch of 150 × 150 layers."""
    count, n, d = 150, 64, 512
    base = torch.randn(n, d)
    left = random_layers(count, base)
    right = random_layers(count, base)
    far_left = [x + 10 for x in left]
    far_right = [y + 10 for y in right]
    left_grams = [gram_of(x) for x in left]
    right_grams = [gram_of(y) for y in right]
    matrix = matrix_of(left, right)
    cases: dict[str, Case] = {
        "floor: one Gram a layer": lambda: plain_grams(left, right),
        "features": lambda: matrix.update(left, right),
        "features, offset 10": lambda: matrix.update(far_left, far_right),
        "Gram matrices": lambda: matrix.update_grams(left_grams, right_grams),
    }
    return {
        "layers, items, columns": [count, n, d],
        "milliseconds": milliseconds(interleaved(cases, rounds, calls=3)),
        "error": {
            "features": error(left, right),
            "features, offset 10": error(far_left, far_right),
        },
    }


def many_items(count: int, rounds: int) -> dict[str, Any]:
    """Return how much faster feature space is for many items and few columns."""
    n, d = 4096, 64
    base = torch.randn(n, d)
    left = random_layers(count, base)
    right = random_layers(count, base)
    matrix = matrix_of(left, right)
    no_permutations = torch.empty(0, n, dtype=torch.int64)
    cases: dict[str, Case] = {
        "floor: one product": lambda: torch.cat(left, 1).mT @ torch.cat(right, 1),
        "features": lambda: matrix.update(left, right),
        "Gram space": lambda: gram_sums(layer_grams([*left, *right]), len(left), no_permutations),
    }
    seconds = interleaved(cases, rounds)
    return {
        "layers, items, columns": [count, n, d],
        "milliseconds": milliseconds(seconds),
        "Gram space / features": ratio(seconds["Gram space"], seconds["features"]),
        "features / floor": ratio(seconds["features"], seconds["floor: one product"]),
        "error": error(left, right),
    }


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=9).parse_args()
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

"""How far a method pulls beyond the limit of the gradient cap, as its averages follow late.

The cap sets its weight from averages over looks, which follow the norms over some 200 steps. Here
both gradients are measured in every step of a run besides: the median, over each tenth of the
steps, of how hard the weighted method pulled, as a share of what the limit of that step allows.

python -m benchmarks.gradient_cap_lag [--out FILE]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from torch import Tensor

from benchmarks.studies import Study, recipes_as_they_are, run_share
from benchmarks.timing import write_result
from tutelage import GradientCap
from tutelage.core import gradient_cap

METHODS = ("kd", "dist", "rcka", "rcka_kd")
STUDIES = {
    "digits, 100 labels": Study("classification/digits", recipes_as_they_are(*METHODS)),
    "Fashion-MNIST, 1000 labels": Study(
        "classification/fashion-mnist", recipes_as_they_are(*METHODS)
    ),
}
MOMENTA = (0.9, 0.5)
PARTS = 10  # of a run


@contextmanager
def measured(momentum: float) -> Iterator[list[float]]:
    """Let every cap average with this momentum, and give what was pulled, step by step."""
    shares: list[float] = []
    forward = GradientCap.forward

    def with_measure(cap: GradientCap, terms: Mapping[str, Tensor]) -> Tensor:
        loss = forward(cap, terms)
        trained = cap._trained()
        method = sum(term for name, term in terms.items() if name != "task")
        task = cap._gradient(terms["task"] / cap._task_weight, trained)
        other = cap._gradient(method, trained)
        norms = [float(cap._dot(gradient, gradient).sqrt()) for gradient in (task, other)]
        cosine = float(cap._dot(task, other)) / (norms[0] * norms[1])
        limit = cap.limit * min(1, 1 + cosine) / max(gradient_cap.SMALLEST, 1 - max(0, cosine))
        shares.append(float(cap.weight) * norms[1] / norms[0] / limit)
        return loss

    with (
        patch.object(GradientCap, "forward", with_measure),
        patch.object(gradient_cap, "MOMENTUM", momentum),
    ):
        yield shares


def medians(shares: list[float]) -> list[float]:
    """Return the median of each tenth."""
    edges = [len(shares) * part // PARTS for part in range(PARTS + 1)]
    return [round(median(shares[start:end]), 2) for start, end in pairwise(edges)]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="file of the result; default: in benchmarks/results")
    arguments = parser.parse_args()
    content: dict[str, Any] = {"every": 20, "seed": 0}
    for name, study in STUDIES.items():
        for method in METHODS:
            of_method = content.setdefault(name, {}).setdefault(method, {})
            for momentum in MOMENTA:
                with tempfile.TemporaryDirectory() as folder, measured(momentum) as shares:
                    run_share({Path(folder): study.changed([method])}, range(1))
                of_method[f"momentum {momentum}"] = medians(shares)
    print(write_result("gradient_cap_lag", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()

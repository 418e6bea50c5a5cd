"""RCKA's logit terms against the official form: forward and backward, float32, one thread, interleaved rounds.

The official form is written out below from its description (traces of N × N matrix products, the transposed
logits for the class-wise term); it shares nothing with ours.

python -m benchmarks.loss_speed [--rounds 9] [--out FILE]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleaved, ratio, write_result
from tutelage.methods import rcka_loss
from tutelage.similarity import Kernel

BATCHES, CLASSES = (64, 128, 256, 512, 1024), (100, 1000)
LEAST_SECONDS = 0.02


def official_alignment(x: Tensor, y: Tensor, rows: bool) -> Tensor:
    """Return <K, L> / √(<K, K> <L, L>) by traces of products, as the official code is described."""
    gram_x, gram_y = x @ x.T, y @ y.T
    if rows:
        gram_x = gram_x / torch.diag(gram_x).sqrt().unsqueeze(1)
        gram_y = gram_y / torch.diag(gram_y).sqrt().unsqueeze(1)
    cross = torch.trace(gram_x @ gram_y.T)
    return cross / torch.sqrt(torch.trace(gram_x @ gram_x.T) * torch.trace(gram_y @ gram_y.T))


def official_loss(student: Tensor, teacher: Tensor, both: bool, rows: bool) -> Tensor:
    """Return -15 A, and the class-wise term with the same weight."""
    loss = -15.0 * official_alignment(teacher, student, rows)
    return loss - 15.0 * official_alignment(teacher.T, student.T, rows) if both else loss


def our_loss(student: Tensor, teacher: Tensor, both: bool, rows: bool) -> Tensor:
    """Return ours with the same settings."""
    terms = rcka_loss(student, teacher, 15.0, 15.0 if both else None, Kernel(scale="rows" if rows else None))
    return terms["intra"] + terms["inter"] if both else terms["intra"]


def backward(
    loss: Callable[[Tensor, Tensor, bool, bool], Tensor], case: tuple[int, int, bool, bool]
) -> Callable[[], None]:
    """Return one forward and backward pass on fixed random logits, repeated to take long enough to be timed."""
    n, p, both, rows = case
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, n, p, generator=generator)
    student.requires_grad_()

    def once() -> None:
        student.grad = None
        loss(student, teacher, both, rows).backward()

    return once


def repeats(call: Callable[[], None]) -> int:
    """Return how many calls take LEAST_SECONDS."""
    call()
    started = time.process_time()
    call()
    return max(1, round(LEAST_SECONDS / max(time.process_time() - started, 1e-6)))


def measure(case: tuple[int, int, bool, bool], rounds: int) -> dict[str, Any]:
    """Return milliseconds of both and the ratio of the official form to ours."""
    calls = {"official": backward(official_loss, case), "ours": backward(our_loss, case)}
    each = interleaved(calls, rounds, {name: repeats(call) for name, call in calls.items()})
    n, p, both, rows = case
    return {
        "batch": n,
        "classes": p,
        "terms": "both" if both else "intra",
        "scale": "rows" if rows else None,
        "official_ms": median(each["official"]) * 1e3,
        "ours_ms": median(each["ours"]) * 1e3,
        "official / ours": ratio(each["official"], each["ours"]),
    }


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n in BATCHES:
        for p in CLASSES:
            for both in (False, True):
                for scaled in (False, True):
                    row = measure((n, p, both, scaled), arguments.rounds)
                    rows.append(row)
                    name = f"N={n} P={p} {row['terms']} scale={row['scale']}"
                    print(f"{name}: {row['official_ms']:.3f} → {row['ours_ms']:.3f} ms", end="  ")
                    print(f"{row['official / ours']['median']:.2f}x", flush=True)
    print(write_result("loss_speed", {"rounds": arguments.rounds, "cases": rows}, arguments.out))


if __name__ == "__main__":
    main()

"""RCKA's logit terms against the official form: forward and backward, float32, one thread.

The official form is written out below from its description: traces of N × N matrix products, and
the transposed logits for the class-wise term. It shares no code with ours.

python -m benchmarks.loss_speed [--rounds 9] [--out FILE]
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage.methods import rcka_loss

BATCH_SIZES = (64, 128, 256, 512, 1024)
NUM_CLASSES = (100, 1000)
WEIGHT = 15.0
MIN_SECONDS = 0.02  # a case is repeated until it takes this long


@dataclass(frozen=True)
class Case:
    """One setting of the loss.

    Attributes:
        batch_size: N.
        num_classes: P.
        both: the class-wise term too, not only the sample-wise one.
        rows: divide the kernels' rows by their diagonal.
    """

    batch_size: int
    num_classes: int
    both: bool
    rows: bool


Loss = Callable[[Tensor, Tensor, Case], Tensor]


def official_alignment(x: Tensor, y: Tensor, rows: bool) -> Tensor:
    """Return <K, L> / √(<K, K> <L, L>) by traces of products, as the official code does."""
    gram_x = x @ x.T
    gram_y = y @ y.T
    if rows:
        gram_x = gram_x / torch.diag(gram_x).sqrt().unsqueeze(1)
        gram_y = gram_y / torch.diag(gram_y).sqrt().unsqueeze(1)
    cross = torch.trace(gram_x @ gram_y.T)
    return cross / torch.sqrt(torch.trace(gram_x @ gram_x.T) * torch.trace(gram_y @ gram_y.T))


def official_loss(student: Tensor, teacher: Tensor, case: Case) -> Tensor:
    """Return -15 A, and the class-wise term with the same weight."""
    loss = -WEIGHT * official_alignment(teacher, student, case.rows)
    if case.both:
        loss = loss - WEIGHT * official_alignment(teacher.T, student.T, case.rows)
    return loss


def our_loss(student: Tensor, teacher: Tensor, case: Case) -> Tensor:
    """Return ours with the same settings."""
    terms = rcka_loss(
        student,
        teacher,
        intra_weight=WEIGHT,
        inter_weight=WEIGHT if case.both else None,
        scale="rows" if case.rows else None,
    )
    return terms["intra"] + terms["inter"] if case.both else terms["intra"]


def loss_call(loss: Loss, case: Case) -> Callable[[], None]:
    """Return one forward and backward pass on fixed random logits."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, case.batch_size, case.num_classes, generator=generator)
    student.requires_grad_()

    def call() -> None:
        student.grad = None
        loss(student, teacher, case).backward()

    return call


def repeats(call: Callable[[], None]) -> int:
    """Return how many calls take MIN_SECONDS."""
    call()
    start = time.process_time()
    call()
    return max(1, round(MIN_SECONDS / max(time.process_time() - start, 1e-6)))


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Return milliseconds of both and the ratio of the official form to ours."""
    calls = {"official": loss_call(official_loss, case), "ours": loss_call(our_loss, case)}
    seconds = interleaved(calls, rounds, {name: repeats(call) for name, call in calls.items()})
    return {
        "batch": case.batch_size,
        "classes": case.num_classes,
        "terms": "both" if case.both else "intra",
        "scale": "rows" if case.rows else None,
        "official_ms": median_ms(seconds["official"]),
        "ours_ms": median_ms(seconds["ours"]),
        "official / ours": ratio(seconds["official"], seconds["ours"]),
    }


def main() -> None:
    """Measure every case and write."""
    arguments = argument_parser(__doc__, rounds=9).parse_args()
    torch.set_num_threads(1)
    rows = []
    for settings in itertools.product(BATCH_SIZES, NUM_CLASSES, (False, True), (False, True)):
        row = measure(Case(*settings), arguments.rounds)
        rows.append(row)
        print(
            f"N={row['batch']} P={row['classes']} {row['terms']} scale={row['scale']}: "
            f"{row['official_ms']:.3f} → {row['ours_ms']:.3f} ms  "
            f"{row['official / ours']['median']:.2f}x",
            flush=True,
        )
    print(write_result("loss_speed", {"rounds": arguments.rounds, "cases": rows}, arguments.out))


if __name__ == "__main__":
    main()

"""What the cap on gradients adds to training, by how often it looks.

A look takes two more backward passes. The step is that of a hand-written loop around a Distiller:
RCKA and KD, small_cnn(width=22) → small_cnn(width=10), batches of 64 images of 28×28, one thread,
with the teacher run in every step and with its outputs at hand, as after `teacher.cache: memory`.

python -m benchmarks.gradient_cap_cost [--rounds 15] [--out FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.side_by_side import OnePass
from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage import KD, RCKA, Classification, CombinedMethod, Distiller, FrozenTeacher, GradientCap
from tutelage.core import Batch
from tutelage.models import small_cnn

STEPS = 100
EVERY = (10, 20, 50)
LAYERS = {"stage2": "stage2", "stage3": "stage3"}


def steps(every: int | None, is_cached: bool) -> Callable[[], None]:
    """Return 100 steps of training.

    Args:
        every: steps from one look of the cap to the next; None is without a cap.
        is_cached: whether the teacher has run before.
    """
    torch.manual_seed(0)
    batch = Batch.of((torch.rand(64, 1, 28, 28), torch.randint(10, (64,))))
    method = CombinedMethod([RCKA(LAYERS), KD()])
    frozen = FrozenTeacher(small_cnn(width=22, convs=2)).with_taps(list(LAYERS.values()))
    teacher = OnePass(frozen) if is_cached else frozen
    distiller = Distiller(small_cnn(width=10), teacher, method, Classification(num_classes=10))
    distiller.train()
    distiller.setup(batch)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-2)
    cap = None if every is None else GradientCap(distiller, every=every)

    def run() -> None:
        for _ in range(STEPS):
            terms = distiller(batch)
            loss = sum(terms.values()) if cap is None else cap(terms)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=15).parse_args()
    torch.set_num_threads(1)
    content: dict[str, Any] = {"rounds": arguments.rounds}
    for is_cached, name in ((False, "teacher in every step"), (True, "teacher cached")):
        cases = {str(every): steps(every, is_cached) for every in (None, *EVERY)}
        seconds = interleaved(cases, arguments.rounds)
        content[name] = {
            "step_ms": median_ms(seconds["None"]) / STEPS,
            "with cap / without": {
                str(every): ratio(seconds[str(every)], seconds["None"]) for every in EVERY
            },
        }
    print(write_result("gradient_cap_cost", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()

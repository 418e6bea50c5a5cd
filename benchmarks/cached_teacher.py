"""A training step whose teacher is stored, against the student alone and a teacher that runs.

RN-32x4 → RN-8x4 on 32×32 images, one thread, the same `Distiller` and optimizer in each case. The
files of `teacher.cache: disk` hold a thousand samples; a step looks up those of its batch.

python -m benchmarks.cached_teacher [--rounds 12] [--batch-size 16] [--out FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage import KD, RCKA, Baseline, Batch, Classification, Distiller, FrozenTeacher, Teacher
from tutelage.cache import StoredTeacher
from tutelage.core import Method, NoTeacher
from tutelage.models import resnet8x4, resnet32x4

STAGES = {name: name for name in ("stage1", "stage2", "stage3")}
SAMPLES = 1024


def batches(keys: Sequence[tuple[int, int]]) -> Iterable[Batch]:
    """Give the samples of these keys, 64 in a batch."""
    for start in range(0, len(keys), 64):
        yield batch_of([position for _, position in keys[start : start + 64]])


def batch_of(positions: Sequence[int]) -> Batch:
    """Return images by their numbers, the same in every call."""
    images = [
        torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(position))
        for position in positions
    ]
    ids = torch.tensor(positions)
    return Batch({"inputs": torch.stack(images), "labels": ids % 100, "ids": ids})


def step_of(method: Method, teacher: Teacher, batch: Batch) -> Callable[[], None]:
    """Return one training step."""
    torch.manual_seed(0)
    student = resnet8x4(100)
    distiller = Distiller(student, teacher, method, Classification(num_classes=100))
    distiller.setup(batch)
    distiller.train()
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        torch.stack(list(distiller(batch).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Time the steps and write the result."""
    parser = argument_parser(__doc__, rounds=12)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network: nn.Module = resnet32x4(100)
    frozen = FrozenTeacher(network)
    batch = batch_of(range(100, 100 + arguments.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        task = Classification(num_classes=100)
        stored = StoredTeacher(frozen, task, batches, SAMPLES, Path(folder), {"data": "random"})
        cases = {
            "student alone": step_of(Baseline(), NoTeacher(), batch),
            "kd, stored": step_of(KD(), stored, batch),
            "kd, running": step_of(KD(), frozen, batch),
            "rcka on logits, stored": step_of(RCKA(), stored, batch),
            "rcka on logits and 3 stages, stored": step_of(RCKA(STAGES), stored, batch),
            "rcka on logits and 3 stages, running": step_of(RCKA(STAGES), frozen, batch),
        }
        times = interleaved(cases, arguments.rounds)
    floor = times["student alone"]
    rows = {}
    for name, seconds in times.items():
        times_floor = ratio(seconds, floor)
        rows[name] = {"ms": median_ms(seconds), "times": times_floor}
        low, high = times_floor["quartile1"], times_floor["quartile3"]
        print(
            f"{name:38} {median_ms(seconds):8.1f} ms  "
            f"{times_floor['median']:.3f} [{low:.3f}, {high:.3f}]"
        )
    write_result(
        "cached_teacher", {"batch_size": arguments.batch_size, "rows": rows}, arguments.out
    )


if __name__ == "__main__":
    main()

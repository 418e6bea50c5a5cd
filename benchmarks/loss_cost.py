"""What a method's loss costs by itself: forward + backward down to the student's features, its own modules included.

The pair is RN-32x4 → RN-8x4, batch 64 of 3×32×32 images, 100 classes, one thread. The floor is a whole step without a
method (teacher forward + student forward, backward and step), measured in turn with the losses; networks are not part
of a loss's time, so the assistant of residual distillation is not either. Memory is the rise of the resident set in a
forked child that does nothing else, less that of a child which only adds two numbers and goes back.

    python -m benchmarks.loss_cost [--rounds 7] [--out FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_overhead import STAGES, floor_step
from benchmarks.timing import interleaved, peak_mib, ratio, write_result
from tutelage import (
    AFD,
    CKD,
    DIST,
    DKD,
    KD,
    OFA,
    RCKA,
    RTK,
    SRD,
    Classification,
    Distiller,
    Method,
    Mimic,
    Network,
    ResidualKD,
)
from tutelage.core import Output, Step
from tutelage.models import resnet8x4, resnet32x4

BLOCKS = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in range(5)]  # every block of the teacher
ENDS = list(STAGES)
METHODS: dict[str, Callable[[], Method]] = {
    "KD": KD,
    "DKD": DKD,
    "DIST": DIST,
    "CKD": CKD,
    "RCKA, logits": RCKA,
    "RCKA, logits + 3 stages": lambda: RCKA(pairs=STAGES),
    "RCKA, logits + 3 stages, centred": lambda: RCKA(pairs=STAGES, center=True),
    "Mimic, last stage": lambda: Mimic(pairs={"stage3": "stage3"}),
    "Mimic, 3 stages": lambda: Mimic(pairs=STAGES),
    "OFA, logits": OFA,
    "OFA, 3 branches": lambda: OFA({"stage1": 2, "stage2": 3, "stage3": 4}),
    "AFD, 3 × 15 layers": lambda: AFD(ENDS, BLOCKS),
    "AFD, 3 × 3 layers": lambda: AFD(ENDS, ENDS),
    "RTK, 3 × 15 layers": lambda: RTK(ENDS, BLOCKS),
    "RTK, 3 × 3 layers": lambda: RTK(ENDS, ENDS),
    "residual, last stage": lambda: ResidualKD(pairs={"stage3": "stage3"}),
    "SRD": SRD,
    "SRD, with features": lambda: SRD(feature_weight=1.0),
}


def batch() -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    return torch.rand(64, 3, 32, 32), torch.randint(100, (64,))


def leaves(value: Any) -> Any:
    """Return the same structure with every tensor as a leaf that collects a gradient."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.is_floating_point())
    if isinstance(value, Mapping):
        return type(value)({name: leaves(part) for name, part in value.items()})
    return type(value)(leaves(part) for part in value) if isinstance(value, list | tuple) else value


def loss_call(make: Callable[[], Method]) -> Callable[[], None]:
    """Return forward and backward of a method's terms at full weight, from the networks' outputs on."""
    told, method = Network(resnet32x4()), make()
    distiller = Distiller(method.grow(resnet8x4(), told), told, method, Classification(num_classes=100))
    images = batch()
    distiller.train()
    distiller.setup(images)
    with torch.no_grad():
        seen = distiller.step(images)
    student = Output(leaves(seen.student.out), leaves(seen.student.taps))
    step = Step(student, seen.teacher, images, seen.task, 1.0)
    inputs = [*method.parameters(), *student.taps.values()]
    inputs += [student.out] if isinstance(student.out, Tensor) else []

    def call() -> None:
        for tensor in inputs:
            tensor.grad = None
        terms = method(step)
        torch.stack([term.sum() for term in terms.values()]).sum().backward()

    return call


def extra_mib(call: Callable[[], None]) -> float:
    """Return how far the resident set rises in three calls, in a child of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_rise, args=(call, theirs))
    child.start()
    found = float(ours.recv())
    child.join()
    return found


def _rise(call: Callable[[], None], answer: Connection) -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is resident now
    before = peak_mib()
    for _ in range(3):
        call()
    answer.send(peak_mib() - before)


def measure(rounds: int, names: list[str]) -> dict[str, Any]:
    """Return milliseconds, memory and the share of the floor of each method."""
    calls = {name: loss_call(METHODS[name]) for name in names}
    bare = extra_mib(lambda: torch.ones(2, requires_grad=True).sum().backward())
    memory = {name: extra_mib(call) - bare for name, call in calls.items()}
    cases: dict[str, Callable[[], object]] = {"floor": floor_step(resnet32x4(), resnet8x4(), batch()), **calls}
    once = interleaved(calls, 1)
    often = {name: max(1, min(40, int(0.1 / spent[0]))) for name, spent in once.items()} | {"floor": 1}
    seconds = interleaved(cases, rounds, often)
    return {
        "floor_ms": median(seconds["floor"]) * 1e3,
        "methods": {
            name: {
                "ms": median(seconds[name]) * 1e3,
                "extra_mib": memory[name],
                "share": ratio(seconds[name], seconds["floor"]),
            }
            for name in names
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="NAME")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    content = {"rounds": arguments.rounds, **measure(arguments.rounds, arguments.methods)}
    print(write_result("loss_cost", content, arguments.out))
    print(f"floor {content['floor_ms']:.0f} ms")
    for name, row in content["methods"].items():
        print(f"{name:34} {row['ms']:8.2f} ms {row['extra_mib']:7.1f} MiB {100 * row['share']['median']:6.2f} %")


if __name__ == "__main__":
    main()

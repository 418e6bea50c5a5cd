"""What a method's loss costs by itself: forward + backward down to the student's features.

The method's own modules are included, networks are not, so neither is the assistant of residual
distillation. The pair is RN-32x4 → RN-8x4, batch 64 of 3×32×32 images, 100 classes, one thread. The
floor is a whole step without a method (teacher forward + student forward, backward and step),
measured in turn with the losses. Memory is the rise of the resident set in a forked child that does
nothing else, less that of a child which only adds two numbers and goes back.

python -m benchmarks.loss_cost [--rounds 7] [--methods NAME …] [--out FILE]
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import multiprocessing
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.step_overhead import STAGES, floor_step
from benchmarks.timing import (
    argument_parser,
    interleaved,
    median_ms,
    peak_mib,
    ratio,
    write_result,
)
from tutelage import Batch, Classification, Distiller, FrozenTeacher, Method, methods
from tutelage.core import Output, Step
from tutelage.models import resnet8x4, resnet32x4

LAST_STAGE = {"stage3": "stage3"}
ENDS = list(STAGES)
TEACHER_BLOCKS = [f"stage{stage}.{block}" for stage in (1, 2, 3) for block in range(5)]
SETTINGS: dict[str, Callable[[], Method]] = {
    "RCKA, logits": methods.RCKA,
    "RCKA, logits + 3 stages": lambda: methods.RCKA(STAGES),
    "RCKA, logits + 3 stages, centered": lambda: methods.RCKA(STAGES, center=True),
    "FitNet, last stage": lambda: methods.FitNet(LAST_STAGE),
    "FitNet, 3 stages": lambda: methods.FitNet(STAGES),
    "OFA, logits": methods.OFA,
    "OFA, 3 branches": lambda: methods.OFA({"stage1": 2, "stage2": 3, "stage3": 4}),
    "AFD, 3 × 15 layers": lambda: methods.AFD(ENDS, TEACHER_BLOCKS),
    "AFD, 3 × 3 layers": lambda: methods.AFD(ENDS, ENDS),
    "RTK, 3 × 15 layers": lambda: methods.RTK(ENDS, TEACHER_BLOCKS),
    "RTK, 3 × 3 layers": lambda: methods.RTK(ENDS, ENDS),
    "ResidualKD, last stage": lambda: methods.ResidualKD(LAST_STAGE),
    "SRD, logits": lambda: methods.SRD(feature_weight=None),
    "SRD, with features": methods.SRD,
}


def default_settings() -> dict[str, Callable[[], Method]]:
    """Return the other methods for classification as they come, by the names of their classes."""
    listed = {name.partition(",")[0] for name in SETTINGS}
    settings: dict[str, Callable[[], Method]] = {}
    for name in methods.__all__:
        method = getattr(methods, name)
        if not inspect.isclass(method) or name in listed:
            continue
        if "classification" in method.info.tasks:
            settings[name] = method
    return settings


METHODS = default_settings() | SETTINGS


def random_batch() -> tuple[Tensor, Tensor]:
    """Return images and labels."""
    return torch.rand(64, 3, 32, 32), torch.randint(100, (64,))


def as_leaves(value: Any) -> Any:
    """Return the same structure with every tensor as a leaf that collects a gradient."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.is_floating_point())
    if isinstance(value, Mapping):
        return type(value)({name: as_leaves(entry) for name, entry in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(as_leaves(entry) for entry in value)
    return value


def loss_call(make: Callable[[], Method]) -> Callable[[], None]:
    """Return forward and backward of a method's terms at full weight, from the outputs on."""
    method = make()
    teacher = FrozenTeacher(resnet32x4())
    student = method.build_student(resnet8x4(), teacher)
    distiller = Distiller(student, teacher, method, Classification(num_classes=100))
    batch = Batch.of(random_batch())
    distiller.train()
    distiller.setup(batch)
    with torch.no_grad():
        example = distiller.step(batch)
    output = Output(as_leaves(example.student.output), as_leaves(example.student.features))
    step = Step(output, example.teacher, batch, example.task_loss)
    leaves = [*method.parameters(), *output.features.values()]
    if isinstance(output.output, Tensor):
        leaves.append(output.output)

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        terms = method(step)
        torch.stack([term.sum() for term in terms.values()]).sum().backward()

    return call


def extra_mib(call: Callable[[], None]) -> float:
    """Return how far the resident set rises in three calls, in a child of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    child = context.Process(target=_send_rise, args=(call, sender))
    child.start()
    rise = float(receiver.recv())
    child.join()
    return rise


def _send_rise(call: Callable[[], None], sender: Connection) -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # The peak starts anew at what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mib()
    for _ in range(3):
        call()
    sender.send(peak_mib() - before)


def measure(rounds: int, names: list[str]) -> dict[str, Any]:
    """Return milliseconds, memory and the share of the floor of each method."""
    calls = {name: loss_call(METHODS[name]) for name in names}
    bare = extra_mib(lambda: torch.ones(2, requires_grad=True).sum().backward())
    memory = {name: extra_mib(call) - bare for name, call in calls.items()}
    floor = floor_step(resnet32x4(), resnet8x4(), random_batch())
    repeats = {
        name: max(1, min(40, int(0.1 / seconds[0])))
        for name, seconds in interleaved(calls, 1).items()
    }
    seconds = interleaved({"floor": floor, **calls}, rounds, {"floor": 1, **repeats})
    return {
        "floor_ms": median_ms(seconds["floor"]),
        "methods": {
            name: {
                "ms": median_ms(seconds[name]),
                "extra_mib": memory[name],
                "share": ratio(seconds[name], seconds["floor"]),
            }
            for name in names
        },
    }


def main() -> None:
    """Measure and write."""
    parser = argument_parser(__doc__, rounds=7)
    parser.add_argument(
        "--methods", nargs="*", default=list(METHODS), choices=METHODS, metavar="NAME"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    content = {"rounds": arguments.rounds, **measure(arguments.rounds, arguments.methods)}
    print(write_result("loss_cost", content, arguments.out))
    print(f"floor {content['floor_ms']:.0f} ms")
    for name, row in content["methods"].items():
        share = 100 * row["share"]["median"]
        print(f"{name:34} {row['ms']:8.2f} ms {row['extra_mib']:7.1f} MiB {share:6.2f} %")


if __name__ == "__main__":
    main()

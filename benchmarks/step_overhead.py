"""What a method adds to a training step, as a ratio to the floor.

The floor is a hand-written loop: the teacher's forward pass, and the student's forward pass,
backward pass and step. The pair is RN-32x4 → RN-8x4 at batch 64 of 32×32 images, one thread. A
second table shows what the framework itself adds to a hand-written loop, on networks so small that
nothing else counts.

python -m benchmarks.step_overhead [--rounds 15] [--out FILE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage import (
    KD,
    RCKA,
    Baseline,
    Classification,
    CombinedMethod,
    Distiller,
    FitNet,
    FrozenTeacher,
    Method,
)
from tutelage.data import Digits
from tutelage.engine import Recipe, Setup, StudentConfig, TrainConfig
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.setup import TrainingSetup
from tutelage.engine.trainer import Trainer
from tutelage.models import resnet8x4, resnet32x4

STAGES = {name: name for name in ("stage1", "stage2", "stage3")}
METHODS: dict[str, Callable[[], Method]] = {
    "kd": KD,
    "rcka, logits": RCKA,
    "rcka, logits + 3 stages": lambda: RCKA(STAGES),
    "rcka, logits + 3 stages, centered": lambda: RCKA(STAGES, center=True),
    "fitnet, 3 stages": lambda: FitNet(STAGES),
    "rcka + kd": lambda: CombinedMethod([RCKA(STAGES), KD()]),
}


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """Return the optimizer of the papers."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


def floor_step(teacher: nn.Module, student: nn.Module, batch: Any) -> Callable[[], None]:
    """Return one step of a hand-written loop that runs the teacher and ignores it."""
    images, labels = batch
    optimizer = sgd(student.parameters())
    teacher.eval()
    student.train()

    def step() -> None:
        with torch.no_grad():
            teacher(images)
        optimizer.zero_grad()
        cross_entropy(student(images), labels).backward()
        optimizer.step()

    return step


def method_step(
    teacher: nn.Module, student: nn.Module, method: Method, batch: Any
) -> Callable[[], None]:
    """Return one step of a hand-written loop around a Distiller, with the method at full weight."""
    distiller = Distiller(student, FrozenTeacher(teacher), method, Classification(num_classes=100))
    distiller.train()
    distiller.setup(batch)
    optimizer = sgd(distiller.parameters())

    def step() -> None:
        optimizer.zero_grad()
        sum(distiller(batch).values()).backward()
        optimizer.step()

    return step


def method_overhead(rounds: int) -> dict[str, Any]:
    """Return each method's step as a ratio to the floor."""
    batch = (torch.rand(64, 3, 32, 32), torch.randint(100, (64,)))
    teacher = resnet32x4()
    cases: dict[str, Callable[[], object]] = {"floor": floor_step(teacher, resnet8x4(), batch)}
    for name, make in METHODS.items():
        cases[name] = method_step(teacher, resnet8x4(), make(), batch)
    seconds = interleaved(cases, rounds)
    return {
        "floor_ms": median_ms(seconds["floor"]),
        "step / floor": {name: ratio(seconds[name], seconds["floor"]) for name in METHODS},
    }


def linear_network() -> nn.Module:
    """Return a network for digits that costs next to nothing."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def framework_overhead(rounds: int) -> dict[str, Any]:
    """Return the microseconds that the engine's loop adds to a hand-written one."""
    recipe = Recipe(
        data=Digits(),
        task=Classification(num_classes=10),
        student=StudentConfig(linear_network()),
        method=Baseline(),
        train=TrainConfig(optimizer=sgd),
    )
    accelerator = Accelerator(cpu=True)
    ready = TrainingSetup.of(Setup.of(recipe), accelerator)
    batch = ready.example
    student = linear_network().train()
    optimizer = sgd(student.parameters())

    def step_by_hand() -> None:
        optimizer.zero_grad()
        loss = cross_entropy(student(batch.inputs), batch.labels)
        loss.backward()
        optimizer.step()
        loss.item()

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(ready, accelerator, RunFolder(Path(folder)))
        trainer.model.train()
        trainer.total = 10**9  # no end of training while it is timed
        cases = {"by hand": step_by_hand, "engine": lambda: trainer._step(batch)}
        seconds = interleaved(cases, rounds, calls=300)
    added = [(a - b) * 1e6 for a, b in zip(seconds["engine"], seconds["by hand"], strict=True)]
    return {
        "by_hand_us": median(seconds["by hand"]) * 1e6,
        "added_us": median(added),
        "added_us_all": added,
    }


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=15).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    content = {
        "methods": method_overhead(arguments.rounds),
        "framework": framework_overhead(arguments.rounds),
        "rounds": arguments.rounds,
    }
    print(write_result("step_overhead", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()

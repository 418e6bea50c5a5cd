"""What feature distillation adds to a detector's training step: over the teacher's backbone and the student's own step.

The floor is a hand-written loop that runs the student's transform once, the teacher's backbone on its result, and the
student's loss, backward pass and optimiser. All steps are interleaved in one run.

    python -m benchmarks.detection_step [--rounds 15] [--out FILE]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.timing import interleaved, ratio, write_result
from tutelage import PCKA, SSIM, Distiller, Method, Mimic, Network, Together
from tutelage.models import fcos, fpn_backbone
from tutelage.tasks import Detection

LEVELS = {f"backbone[{level}]": f"backbone[{level}]" for level in range(4)}
METHODS: dict[str, Callable[[], Method]] = {
    "pcka": lambda: PCKA(LEVELS, patch="auto"),
    "pcka, intra + inter": lambda: PCKA(LEVELS, patch="auto", inter=10.0),
    "mimic": lambda: Mimic(LEVELS),
    "pcka + mimic": lambda: Together([PCKA(LEVELS, patch="auto"), Mimic(LEVELS)]),
    "ssim": lambda: SSIM(LEVELS, ignore_dead=True),
}


def detector(body: str) -> nn.Module:
    """Return an FCOS on P2 to P5, 64 channels, two convolutions a head."""
    backbone = fpn_backbone(body, 64, levels=(2, 3, 4, 5), extra=None)
    return fcos(backbone, 2, sides=[256], convs=2, strides=[4, 8, 16, 32])


def images(count: int) -> Any:
    """Return a batch with five boxes an image."""
    corner = torch.rand(count, 5, 2) * 180
    boxes = torch.cat([corner, corner + 20 + torch.rand(count, 5, 2) * 50], 2)
    labels = torch.ones(5, dtype=torch.int64)
    return list(torch.rand(count, 3, 256, 256)), [{"boxes": b, "labels": labels} for b in boxes], torch.arange(count)


def floor_step(teacher: nn.Module, student: nn.Module, batch: Any) -> Callable[[], None]:
    """Return a step that runs the teacher's backbone and ignores it."""
    optimizer = torch.optim.AdamW(student.parameters())
    seen: list[torch.Tensor] = []
    student.transform.register_forward_hook(lambda module, args, out: seen.append(out[0].tensors))
    student.train()
    teacher.eval()

    def step() -> None:
        optimizer.zero_grad()
        losses = student(*batch[:2])
        with torch.no_grad():
            teacher.backbone(seen.pop())
        sum(losses.values()).backward()
        optimizer.step()

    return step


def method_step(teacher: nn.Module, student: nn.Module, method: Method, batch: Any) -> Callable[[], None]:
    """Return a step of a hand-written loop around a Distiller."""
    distiller = Distiller(student, Network(teacher), method, Detection(2)).train()
    distiller.setup(batch)
    optimizer = torch.optim.AdamW(distiller.parameters())

    def step() -> None:
        optimizer.zero_grad()
        sum(distiller(batch).values()).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch, teacher = images(2), detector("resnet18")
    cases = {"floor": floor_step(teacher, detector("mobilenetv3_small_100"), batch)}
    for name, make in METHODS.items():
        cases[name] = method_step(teacher, detector("mobilenetv3_small_100"), make(), batch)
    seconds = interleaved(cases, arguments.rounds)
    content = {
        "pair": "FCOS ResNet-18 -> FCOS MobileNetV3-small, P2 to P5, 64 channels, batch 2 of 256 x 256, float32",
        "floor_ms": median(seconds["floor"]) * 1e3,
        "step / floor": {name: ratio(seconds[name], seconds["floor"]) for name in METHODS},
        "rounds": arguments.rounds,
    }
    print(write_result("detection_step", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()

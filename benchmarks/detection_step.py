"""What feature distillation adds to a detector's training step, as a ratio to the floor.

The floor is a hand-written loop: the student's transform once, the teacher's backbone on its
result, and the student's loss, backward pass and optimizer.

python -m benchmarks.detection_step [--rounds 15] [--out FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage import PCKA, SSIM, CombinedMethod, Distiller, FitNet, FrozenTeacher, Method
from tutelage.models import fcos, fpn_backbone
from tutelage.tasks import Detection

LEVELS = {f"backbone[{level}]": f"backbone[{level}]" for level in range(4)}
METHODS: dict[str, Callable[[], Method]] = {
    "pcka": lambda: PCKA(LEVELS, patch_size="auto"),
    "pcka, intra + inter": lambda: PCKA(LEVELS, patch_size="auto", inter_weight=10.0),
    "fitnet": lambda: FitNet(LEVELS),
    "pcka + fitnet": lambda: CombinedMethod([PCKA(LEVELS, patch_size="auto"), FitNet(LEVELS)]),
    "ssim": lambda: SSIM(LEVELS, ignore_dead=True),
}
PAIR = (
    "FCOS ResNet-18 -> FCOS MobileNetV3-small, P2 to P5, 64 channels, batch 2 of 256 x 256, float32"
)


def detector(body: str) -> nn.Module:
    """Return an FCOS on P2 to P5, 64 channels, two convolutions a head."""
    backbone = fpn_backbone(body, 64, levels=(2, 3, 4, 5), extra=None)
    return fcos(backbone, 2, sides=[256], convs=2, strides=[4, 8, 16, 32])


def random_batch(count: int) -> Any:
    """Return images with five boxes each, their targets, and their ids."""
    corners = torch.rand(count, 5, 2) * 180
    boxes = torch.cat([corners, corners + 20 + torch.rand(count, 5, 2) * 50], 2)
    labels = torch.ones(5, dtype=torch.int64)
    images = list(torch.rand(count, 3, 256, 256))
    return images, [{"boxes": b, "labels": labels} for b in boxes], torch.arange(count)


def floor_step(teacher: nn.Module, student: nn.Module, batch: Any) -> Callable[[], None]:
    """Return a step that runs the teacher's backbone and ignores it."""
    images, targets, _ = batch
    optimizer = torch.optim.AdamW(student.parameters())
    transformed: list[torch.Tensor] = []
    student.transform.register_forward_hook(
        lambda module, args, output: transformed.append(output[0].tensors)
    )
    student.train()
    teacher.eval()

    def step() -> None:
        optimizer.zero_grad()
        losses = student(images, targets)
        with torch.no_grad():
            teacher.backbone(transformed.pop())
        sum(losses.values()).backward()
        optimizer.step()

    return step


def method_step(
    teacher: nn.Module, student: nn.Module, method: Method, batch: Any
) -> Callable[[], None]:
    """Return a step of a hand-written loop around a Distiller."""
    distiller = Distiller(student, FrozenTeacher(teacher), method, Detection(num_classes=2))
    distiller.train()
    distiller.setup(batch)
    optimizer = torch.optim.AdamW(distiller.parameters())

    def step() -> None:
        optimizer.zero_grad()
        sum(distiller(batch).values()).backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=15).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = random_batch(2)
    teacher = detector("resnet18")
    cases = {"floor": floor_step(teacher, detector("mobilenetv3_small_100"), batch)}
    for name, make in METHODS.items():
        cases[name] = method_step(teacher, detector("mobilenetv3_small_100"), make(), batch)
    seconds = interleaved(cases, arguments.rounds)
    content = {
        "pair": PAIR,
        "floor_ms": median_ms(seconds["floor"]),
        "step / floor": {name: ratio(seconds[name], seconds["floor"]) for name in METHODS},
        "rounds": arguments.rounds,
    }
    print(write_result("detection_step", content, arguments.out))
    print(content)


if __name__ == "__main__":
    main()

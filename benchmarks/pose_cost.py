"""What OKDHP's branches cost in training, and what is shipped: time, parameters, multiply-adds.

python -m benchmarks.pose_cost [--rounds 9] [--out FILE]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import argument_parser, interleaved, median_ms, ratio, write_result
from tutelage import FPD, OKDHP, Baseline, Distiller, FrozenTeacher, Method, NoTeacher
from tutelage.core.modes import eval_mode
from tutelage.models import PoseNetwork, small_pose, stacked_hourglass
from tutelage.tasks import Pose

JOINTS = 17
METHODS: dict[str, Callable[[], Method]] = {
    "baseline": Baseline,
    "branches alone": lambda: OKDHP(kd_weight=0.0, ensemble_weight=0.0),
    "okdhp": OKDHP,
    "fpd": FPD,
}
SETTING = "small_pose of width 24 (mirror-mouse), FPD's teacher of width 48, batch 8 of 128 x 128"


def small(width: int = 24) -> PoseNetwork:
    """Return the network of the recipes pose/mirror-mouse."""
    return small_pose(JOINTS, width=width)


def pose_batch(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and points."""
    points = torch.rand(count, JOINTS, 3) * (size - 1)
    points[..., 2] = 1.0
    return torch.rand(count, 3, size, size), points


def training_step(method: Method) -> Callable[[], None]:
    """Return a step of a hand-written loop around a Distiller."""
    torch.manual_seed(0)
    teacher = FrozenTeacher(small(48)) if method.uses_teacher else NoTeacher()
    student = method.build_student(small(), teacher)
    distiller = Distiller(student, teacher, method, Pose(JOINTS))
    batch = pose_batch(8, 128)
    distiller.setup(batch)
    distiller.train()
    optimizer = torch.optim.AdamW(distiller.parameters())

    def step() -> None:
        optimizer.zero_grad()
        sum(distiller(batch).values()).backward()
        optimizer.step()

    return step


def multiply_adds(network: nn.Module, size: tuple[int, int]) -> int:
    """Return the multiply-adds of one image."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), eval_mode(network), counter:
        network(torch.zeros(1, 3, *size))
    return counter.get_total_flops() // 2


def sizes(make: Callable[[], PoseNetwork], size: tuple[int, int]) -> dict[str, Any]:
    """Return parameters and multiply-adds of a network, of its branches, and of what is shipped."""
    network = make()
    method = OKDHP()
    branched = method.build_student(make(), NoTeacher())
    result = {}
    for name, module in (
        ("baseline", network),
        ("trained", branched),
        ("deployed", method.deploy(branched)),
    ):
        count = sum(parameter.numel() for parameter in module.parameters())
        result[name] = {"parameters": count, "multiply_adds": multiply_adds(module, size)}
    return result


def main() -> None:
    """Measure and write."""
    arguments = argument_parser(__doc__, rounds=9).parse_args()
    torch.set_num_threads(1)
    steps = {name: training_step(make()) for name, make in METHODS.items()}
    seconds = interleaved(steps, arguments.rounds)
    content = {
        "setting": SETTING,
        "step": {
            name: {
                "ms": median_ms(values),
                "over_baseline": ratio(values, seconds["baseline"]),
            }
            for name, values in seconds.items()
        },
        "networks": {
            "small_pose, width 24, 128 x 128": sizes(small, (128, 128)),
            "hourglass of 4 stacks, 256 x 256": sizes(lambda: stacked_hourglass(16, 4), (256, 256)),
        },
    }
    print(write_result("pose_cost", content, arguments.out))


if __name__ == "__main__":
    main()

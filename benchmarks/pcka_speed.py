"""PCKA against the official form: forward and backward, float32, B=2, C=256, one thread; memory.

The official form is written out below from its description: both maps resized and cut, then channel
by channel the traces of products of Gram matrices, and of the transposed patches for the inter
term. It shares no code with ours. "floor" is the simplest computation that relates patches: cut
both maps and multiply them once. CPU time includes page faults; the official form causes more or
fewer of them, since each channel's gradient is a whole map of zeros.

python -m benchmarks.pcka_speed [--rounds 7] [--out FILE]
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.loss_speed import official_alignment
from benchmarks.timing import (
    argument_parser,
    interleaved,
    median_ms,
    peak_mib,
    ratio,
    write_result,
)
from tutelage.methods import pcka_loss

BATCH_SIZE = 2
CHANNELS = 256
SIDES = (64, 32)
MEMORY_SHAPE = (16, 256, 128, 128)
PATCH_SIZE = 16
WEIGHT = 10.0
CALLS = {"official": 1, "ours": 10, "floor": 10}


def official_patches(maps: Tensor) -> Tensor:
    """Return patches (C, patches, B * 256) of maps (B, C, H, W).

    Maps are resized to a multiple of 16 even where they are one.
    """
    height, width = (-(-side // PATCH_SIZE) * PATCH_SIZE for side in maps.shape[2:])
    resized = F.interpolate(maps.permute(1, 0, 2, 3), (height, width), mode="bilinear")
    rows, columns = height // PATCH_SIZE, width // PATCH_SIZE
    split = resized.reshape(*resized.shape[:2], rows, PATCH_SIZE, columns, PATCH_SIZE)
    return split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2).contiguous()


def official_loss(student: Tensor, teacher: Tensor, both: bool) -> Tensor:
    """Return the mean of -10 A over channels, and the inter term with the same weight."""
    x = official_patches(teacher)
    y = official_patches(student)
    total = torch.zeros(())
    for c in range(len(x)):
        total = total + WEIGHT * -official_alignment(x[c].squeeze(), y[c].squeeze(), False)
        if both:
            total = total + WEIGHT * -official_alignment(x[c].squeeze().T, y[c].squeeze().T, False)
    return total / len(x)


def our_loss(student: Tensor, teacher: Tensor, both: bool) -> Tensor:
    """Return ours with the same settings."""
    terms = pcka_loss(student, teacher, intra_weight=WEIGHT, inter_weight=WEIGHT if both else None)
    return terms["intra"] + terms["inter"] if both else terms["intra"]


def floor_loss(student: Tensor, teacher: Tensor, both: bool) -> Tensor:
    """Cut both maps and multiply them once."""
    return (_simple_patches(teacher) @ _simple_patches(student).mT).sum()


def _simple_patches(maps: Tensor) -> Tensor:
    split = maps.unflatten(3, (-1, PATCH_SIZE)).unflatten(2, (-1, PATCH_SIZE))
    return split.permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(1, 2)


LOSSES = {"official": official_loss, "ours": our_loss, "floor": floor_loss}


def random_maps(*shape: int) -> tuple[Tensor, Tensor]:
    """Return the student's maps, with gradient, and the teacher's."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(shape, generator=generator).requires_grad_()
    return student, torch.randn(shape, generator=generator)


def measure(side: int, both: bool, rounds: int) -> dict[str, Any]:
    """Return milliseconds of each form, and ratios."""
    student, teacher = random_maps(BATCH_SIZE, CHANNELS, side, side)
    _check_equal(student, teacher, both)

    def loss_call(name: str) -> Callable[[], None]:
        def call() -> None:
            student.grad = None
            LOSSES[name](student, teacher, both).backward()

        return call

    seconds = interleaved({name: loss_call(name) for name in LOSSES}, rounds, CALLS)
    return {
        "side": side,
        "terms": "intra + inter" if both else "intra",
        **{f"{name}_ms": median_ms(values) for name, values in seconds.items()},
        "official / ours": ratio(seconds["official"], seconds["ours"]),
        "ours / floor": ratio(seconds["ours"], seconds["floor"]),
    }


def _check_equal(student: Tensor, teacher: Tensor, both: bool) -> None:
    """Raise if both forms differ; ours is weight * (1 - A), the official one -weight * A."""
    offset = WEIGHT * (2 if both else 1)
    official = official_loss(student, teacher, both).item()
    ours = our_loss(student, teacher, both).item()
    assert abs(official + offset - ours) < 1e-4, (official, ours)


def peak_memory(both: bool) -> dict[str, Any]:
    """Return MiB of the maps and beyond them; must be the first work of its process."""
    student, teacher = random_maps(*MEMORY_SHAPE)
    before = peak_mib()
    our_loss(student, teacher, both).backward()
    beyond_maps = peak_mib() - before
    maps = 2 * student.numel() * 4 / 2**20
    return {
        "shape": MEMORY_SHAPE,
        "maps_mib": maps,
        "beyond_maps_mib": beyond_maps,
        "peak_mib": maps + beyond_maps,
    }


def peak_memory_of_process(terms: str) -> dict[str, Any]:
    """Return the peak memory of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.pcka_speed", "--memory", terms]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    memory: dict[str, Any] = json.loads(answer.stdout)
    return memory


def main() -> None:
    """Measure every case and write."""
    parser = argument_parser(__doc__, rounds=7)
    parser.add_argument(
        "--memory", choices=["intra", "both"], help="only this peak, as a line of JSON"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(json.dumps(peak_memory(arguments.memory == "both")))
        return
    memory = {terms: peak_memory_of_process(terms) for terms in ("intra", "both")}
    print(memory, flush=True)
    rows = []
    for side in SIDES:
        for both in (False, True):
            row = measure(side, both, arguments.rounds)
            rows.append(row)
            print(
                f"{side}×{side} {row['terms']}: {row['official_ms']:.1f} → {row['ours_ms']:.2f} ms"
                f"  {row['official / ours']['median']:.1f}x, floor {row['floor_ms']:.2f} ms",
                flush=True,
            )
    content = {"rounds": arguments.rounds, "cases": rows, "memory": memory}
    print(write_result("pcka_speed", content, arguments.out))


if __name__ == "__main__":
    main()

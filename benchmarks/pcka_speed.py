"""PCKA against the official form: forward and backward, float32, B=2, C=256, one thread, interleaved; and peak memory.

The official form is written out below from its description: both maps resized and cut, then channel by channel the
traces of products of Gram matrices, and of the transposed patches for the inter term. It shares nothing with ours.
"floor" is the simplest thing that relates patches: cut both maps whole and multiply them once. CPU time includes page
faults; the official form causes more or fewer of them, since each channel's gradient is a whole map of zeros.

python -m benchmarks.pcka_speed [--rounds 7] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.loss_speed import official_alignment
from benchmarks.timing import interleaved, peak_mib, ratio, write_result
from tutelage.methods import pcka_loss

SHAPE = (2, 256)
LARGE = (16, 256, 128, 128)
SIDES = (64, 32)
CALLS = {"official": 1, "ours": 10, "floor": 10}
WEIGHT = 10.0


def official_patches(maps: Tensor) -> Tensor:
    """Return (C, patches, B · 256) of maps (B, C, H, W), resized to a multiple of 16 even where they have it."""
    height, width = (-(-side // 16) * 16 for side in maps.shape[2:])
    resized = F.interpolate(maps.permute(1, 0, 2, 3), (height, width), mode="bilinear")
    split = resized.reshape(*resized.shape[:2], height // 16, 16, width // 16, 16)
    return split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2).contiguous()


def official_loss(student: Tensor, teacher: Tensor, both: bool) -> Tensor:
    """Return the mean of -10 A over channels, and the inter term with the same weight."""
    x, y = official_patches(teacher), official_patches(student)
    total = torch.zeros(())
    for c in range(len(x)):
        total = total + WEIGHT * -official_alignment(x[c].squeeze(), y[c].squeeze(), False)
        if both:
            total = total + WEIGHT * -official_alignment(x[c].squeeze().T, y[c].squeeze().T, False)
    return total / len(x)


def our_loss(student: Tensor, teacher: Tensor, both: bool) -> Tensor:
    """Return ours with the same settings."""
    terms = pcka_loss(student, teacher, WEIGHT, WEIGHT if both else None)
    return terms["intra"] + terms["inter"] if both else terms["intra"]


def floor_loss(student: Tensor, teacher: Tensor, both: bool) -> Tensor:
    """Cut both maps whole and multiply them once."""
    x, y = (
        maps.unflatten(3, (-1, 16)).unflatten(2, (-1, 16)).permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(1, 2)
        for maps in (teacher, student)
    )
    return (x @ y.mT).sum()


def maps(*shape: int) -> tuple[Tensor, Tensor]:
    """Return student and teacher of random values."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).requires_grad_(), torch.randn(shape, generator=generator)


def measure(side: int, both: bool, rounds: int) -> dict[str, Any]:
    """Return milliseconds of each form and the ratios to ours; the first round warms up and is left out."""
    student, teacher = maps(*SHAPE, side, side)
    losses = {"official": official_loss, "ours": our_loss, "floor": floor_loss}
    shift = WEIGHT * (2 if both else 1)
    values = {name: losses[name](student, teacher, both).item() for name in ("official", "ours")}
    assert abs(values["official"] + shift - values["ours"]) < 1e-4, values

    def case(name: str) -> Callable[[], None]:
        def run() -> None:
            student.grad = None
            losses[name](student, teacher, both).backward()

        return run

    each = interleaved({name: case(name) for name in losses}, rounds, CALLS)
    return {
        "side": side,
        "terms": "intra + inter" if both else "intra",
        **{f"{name}_ms": median(spents) * 1e3 for name, spents in each.items()},
        "official / ours": ratio(each["official"], each["ours"]),
        "ours / floor": ratio(each["ours"], each["floor"]),
    }


def peak_memory(both: bool) -> dict[str, Any]:
    """Return MiB of the largest case: of the maps, and beyond them; it must be the first work of its process."""
    student, teacher = maps(*LARGE)
    before = peak_mib()
    our_loss(student, teacher, both).backward()
    beyond = peak_mib() - before
    inputs = 2 * student.numel() * 4 / 2**20
    return {"shape": LARGE, "maps_mib": inputs, "beyond_maps_mib": beyond, "peak_mib": inputs + beyond}


def main() -> None:
    """Measure every case, memory in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out")
    parser.add_argument("--memory", choices=["intra", "both"], help="only this peak, as a line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(json.dumps(peak_memory(arguments.memory == "both")))
        return
    memory = {}
    for terms in ("intra", "both"):
        command = [sys.executable, "-m", "benchmarks.pcka_speed", "--memory", terms]
        memory[terms] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(terms, memory[terms], flush=True)
    rows = []
    for side in SIDES:
        for both in (False, True):
            row = measure(side, both, arguments.rounds)
            rows.append(row)
            print(f"{side}×{side} {row['terms']}: {row['official_ms']:.1f} → {row['ours_ms']:.2f} ms", end="  ")
            print(f"{row['official / ours']['median']:.1f}x, floor {row['floor_ms']:.2f} ms", flush=True)
    print(write_result("pcka_speed", {"rounds": arguments.rounds, "cases": rows, "memory": memory}, arguments.out))


if __name__ == "__main__":
    main()

"""All-pairs CKA of two ResNet-18 against their bare forward passes and against other tools.

20 convolutions each, 64×64 images, batches of 64, 512 images, one thread; CPU time, cases interleaved in random order
inside each round. Memory is the rise of a fresh process's peak over the bare passes. The error is the largest
difference to float64 Grams of the same features. Tools that are not installed are left out.

python -m benchmarks.cka_networks [--rounds 5] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved, ratio, write_result
from tutelage.core import Taps
from tutelage.engine.compare import compare_layers
from tutelage.similarity import CKAMatrix

BATCH, IMAGES, SIDE = 64, 512, 64
PEERS = {"pytorch-cka": "cka", "cka-pytorch": "cka_pytorch.cka", "torch-cka": "torch_cka"}
Case = Callable[[], Any]


class Pair:
    """Two networks, their layers, and the images."""

    def __init__(self) -> None:
        from torchvision.models import resnet18

        torch.manual_seed(0)
        self.networks = [resnet18().eval(), resnet18().eval()]
        self.layers = [name for name, module in self.networks[0].named_modules() if isinstance(module, nn.Conv2d)]
        self.images = torch.randn(IMAGES, 3, SIDE, SIDE)  # as normalised images are
        self.batches = [(batch, torch.zeros(len(batch))) for batch in self.images.split(BATCH)]

    def loader(self) -> Any:
        """Return a loader as the other tools want it."""
        data = torch.utils.data.TensorDataset(self.images, torch.zeros(IMAGES))
        return torch.utils.data.DataLoader(data, batch_size=BATCH)

    @torch.no_grad()
    def floor(self) -> None:
        """Run both networks and forget what they say."""
        for images, _ in self.batches:
            for network in self.networks:
                network(images)

    def ours(self) -> Tensor:
        """Compare with tutelage."""
        return (
            compare_layers(self.networks, [self.layers] * 2, [(images,) for images, _ in self.batches]).compute().value
        )

    def exact(self) -> Tensor:
        """Compare by float64 Grams of centred features."""

        def gram(features: Tensor) -> Tensor:
            x = features.flatten(1).double()
            x = x - x.mean(0)
            return x @ x.T

        matrix = CKAMatrix(self.layers, self.layers)
        taps = [Taps(network, self.layers, keep=gram) for network in self.networks]
        with torch.no_grad():
            for images, _ in self.batches:
                matrix.update_grams(*(tap(images).taps for tap in taps))
        for tap in taps:
            tap.remove()
        return matrix.compute().value

    def pytorch_cka(self) -> Tensor:
        """Compare with pytorch-cka."""
        from cka import compute_cka

        return compute_cka(*self.networks, self.loader(), layers=self.layers, device="cpu", progress=False)[0]

    def cka_pytorch(self) -> Tensor:
        """Compare with cka-pytorch, one pass instead of its ten."""
        from cka_pytorch.cka import CKACalculator

        tool = CKACalculator(*self.networks, model1_layers=self.layers, hook_recursive=False, verbose=False)
        found = tool.calculate_cka_matrix(self.loader(), num_epochs=1)
        tool.hook_manager1.clear_all()
        tool.hook_manager2.clear_all()
        return found

    @torch.no_grad()
    def torch_cka(self) -> Tensor:
        """Compare with torch-cka, without gradients (as shipped it keeps them)."""
        from torch_cka import CKA

        tool = CKA(*self.networks, "a", "b", model1_layers=self.layers, model2_layers=self.layers)
        tool.compare(self.loader())
        for network in self.networks:
            for module in network.modules():
                module._forward_hooks.clear()
        return tool.hsic_matrix

    def cases(self) -> dict[str, Case]:
        """Return what can be run here, by name."""
        peers = {"pytorch-cka": self.pytorch_cka, "cka-pytorch": self.cka_pytorch, "torch-cka": self.torch_cka}
        there = {name: case for name, case in peers.items() if installed(PEERS[name])}
        return {"two forward passes": self.floor, "tutelage": self.ours, **there}


def installed(module: str) -> bool:
    """Return whether a tool can be imported, with all that it needs."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def quiet(case: Case) -> Case:
    """Return a case that prints nothing."""

    def run() -> Any:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return case()

    return run


def peak_megabytes(name: str) -> float:
    """Return the peak memory of a fresh process that runs one case."""
    command = [sys.executable, "-m", "benchmarks.cka_networks", "--peak-of", name]
    return float(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pair = Pair()
    cases = {name: quiet(case) for name, case in pair.cases().items()}
    if arguments.peak_of:
        cases[arguments.peak_of]()
        print(
            next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
            / 1024
        )
        return
    seconds = interleaved(cases, arguments.rounds)
    exact, floor = pair.exact(), seconds["two forward passes"]
    memory = {name: peak_megabytes(name) for name in cases}
    rows = {}
    for name in list(cases)[1:]:
        rows[name] = {
            "seconds": median(seconds[name]),
            "x two forward passes": ratio(seconds[name], floor),
            "tutelage / this": ratio(seconds["tutelage"], seconds[name]),
            "extra_megabytes": memory[name] - memory["two forward passes"],
            "largest_error": float((cases[name]().double() - exact).abs().max()),
        }
        print(name, json.dumps(rows[name]), flush=True)
    content = {"layers": len(pair.layers), "images": IMAGES, "batch": BATCH, "rounds": arguments.rounds}
    print(write_result("cka_networks", {**content, "floor_seconds": median(floor), "tools": rows}, arguments.out))


if __name__ == "__main__":
    main()

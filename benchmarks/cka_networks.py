"""All-pairs CKA of two ResNet-18 against their bare forward passes and against other tools.

20 convolutions each, 64×64 images, batches of 64, 512 images, one thread. Memory is the rise of a
fresh process's peak over the bare passes. The error is the largest difference to float64 Gram
matrices of the same features. Tools that are not installed are left out.

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
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from benchmarks.timing import argument_parser, interleaved, peak_mib, ratio, write_result
from tutelage.analysis import compare_layers
from tutelage.core import FeatureTaps
from tutelage.similarity import CKAMatrix

BATCH_SIZE = 64
NUM_IMAGES = 512
SIDE = 64
FLOOR = "two forward passes"
Case = Callable[[], Any]


class Comparison:
    """Two networks, their layers and the images, compared by several tools."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.networks = [resnet18().eval(), resnet18().eval()]
        modules = self.networks[0].named_modules()
        self.layers = [name for name, module in modules if isinstance(module, nn.Conv2d)]
        images = torch.randn(NUM_IMAGES, 3, SIDE, SIDE)  # as normalized images are
        self.batches = images.split(BATCH_SIZE)
        # The other tools want labels.
        self.loader = DataLoader(
            TensorDataset(images, torch.zeros(NUM_IMAGES)), batch_size=BATCH_SIZE
        )

    @torch.no_grad()
    def forward_passes(self) -> None:
        """Run both networks and forget their outputs."""
        for images in self.batches:
            for network in self.networks:
                network(images)

    def tutelage(self) -> Tensor:
        """Compare with tutelage."""
        layers = [self.layers, self.layers]
        return compare_layers(self.networks, layers, self.batches).compute().value

    def exact(self) -> Tensor:
        """Compare by float64 Gram matrices of centered features."""

        def gram(features: Tensor) -> Tensor:
            x = features.flatten(1).double()
            x = x - x.mean(0)
            return x @ x.T

        matrix = CKAMatrix(self.layers, self.layers)
        left, right = (FeatureTaps(network, self.layers, gram) for network in self.networks)
        with torch.no_grad():
            for images in self.batches:
                matrix.update_grams(left(images).features, right(images).features)
        left.remove()
        right.remove()
        return matrix.compute().value

    def pytorch_cka(self) -> Tensor:
        """Compare with pytorch-cka."""
        from cka import compute_cka

        return compute_cka(
            *self.networks, self.loader, layers=self.layers, device="cpu", progress=False
        )[0]

    def cka_pytorch(self) -> Tensor:
        """Compare with cka-pytorch, one pass instead of its ten."""
        from cka_pytorch.cka import CKACalculator

        tool = CKACalculator(
            *self.networks, model1_layers=self.layers, hook_recursive=False, verbose=False
        )
        matrix = tool.calculate_cka_matrix(self.loader, num_epochs=1)
        tool.hook_manager1.clear_all()
        tool.hook_manager2.clear_all()
        return matrix

    @torch.no_grad()
    def torch_cka(self) -> Tensor:
        """Compare with torch-cka, without gradients (as shipped it keeps them)."""
        from torch_cka import CKA

        tool = CKA(*self.networks, "a", "b", model1_layers=self.layers, model2_layers=self.layers)
        tool.compare(self.loader)
        for network in self.networks:
            for module in network.modules():
                module._forward_hooks.clear()
        return tool.hsic_matrix

    def cases(self) -> dict[str, Case]:
        """Return what can be run here, by name, the forward passes first."""
        cases: dict[str, Case] = {FLOOR: self.forward_passes, "tutelage": self.tutelage}
        if is_installed("cka"):
            cases["pytorch-cka"] = self.pytorch_cka
        if is_installed("cka_pytorch.cka"):
            cases["cka-pytorch"] = self.cka_pytorch
        if is_installed("torch_cka"):
            cases["torch-cka"] = self.torch_cka
        return {name: quiet(case) for name, case in cases.items()}


def is_installed(module: str) -> bool:
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


def peak_of(name: str) -> float:
    """Return the peak memory in MiB of a fresh process that runs one case."""
    command = [sys.executable, "-m", "benchmarks.cka_networks", "--peak-of", name]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.splitlines()[-1])


def measure(comparison: Comparison, rounds: int) -> dict[str, Any]:
    """Return time, memory and error of every tool."""
    cases = comparison.cases()
    seconds = interleaved(cases, rounds)
    exact = comparison.exact()
    memory = {name: peak_of(name) for name in cases}
    tools = {}
    for name in list(cases)[1:]:
        tools[name] = {
            "seconds": median(seconds[name]),
            "x two forward passes": ratio(seconds[name], seconds[FLOOR]),
            "tutelage / this": ratio(seconds["tutelage"], seconds[name]),
            "extra_megabytes": memory[name] - memory[FLOOR],
            "largest_error": float((cases[name]().double() - exact).abs().max()),
        }
        print(name, json.dumps(tools[name]), flush=True)
    return {"floor_seconds": median(seconds[FLOOR]), "tools": tools}


def main() -> None:
    """Measure and write."""
    parser = argument_parser(__doc__, rounds=5)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    comparison = Comparison()
    if arguments.peak_of:
        comparison.cases()[arguments.peak_of]()
        print(peak_mib())
        return
    content = {
        "layers": len(comparison.layers),
        "images": NUM_IMAGES,
        "batch": BATCH_SIZE,
        "rounds": arguments.rounds,
        **measure(comparison, arguments.rounds),
    }
    print(write_result("cka_networks", content, arguments.out))


if __name__ == "__main__":
    main()

"""Compare an exported file with the network, in a process that knows the file alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from tutelage.deploy.formats import Format, require
from tutelage.deploy.served import Served
from tutelage.errors import UserError

# Each reads a file and inputs, and writes outputs; none imports this package.
BEGIN = "import sys, numpy as np; file, given, gives = sys.argv[1:]; inputs = np.load(given)\n"
END = "\nnp.savez(gives, **results)"
TORCH = """
import torch, torchvision
torch.set_num_threads(1)
network = {load}
results = {{}}
with torch.no_grad():
    for key in inputs:
        output = network(torch.from_numpy(inputs[key]))
        output = output if isinstance(output, (tuple, list)) else (output,)
        results |= {{f"{{key}}/{{place}}": value.numpy() for place, value in enumerate(output)}}
"""
ONNX = """
import onnxruntime
network = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
name = network.get_inputs()[0].name
results = {}
for key in inputs:
    output = network.run(None, {name: inputs[key]})
    results |= {f"{key}/{place}": value for place, value in enumerate(output)}
"""
READERS: dict[str, str] = {
    "onnx": ONNX,
    "torch-export": TORCH.format(load="torch.export.load(file).module()"),
    "torchscript": TORCH.format(load="torch.jit.load(file)"),
}


@dataclass(frozen=True)
class Comparison:
    """How far an exported file is from its network.

    Attributes:
        num_images: that were compared.
        largest: difference of any two numbers.
        relative: the same, as a share of the largest number of that output, or of 1.
    """

    num_images: int
    largest: float
    relative: float


def compare(served: Served, kind: Format, path: Path) -> Comparison:
    """Return how far a file is from the network on real images.

    Raises:
        UserError: If the file cannot be read or run, or gives outputs of another shape.
    """
    rows = (row for images in served.inputs for row in ([images] if served.takes_list else images))
    num_images = len({row.numpy().tobytes() for row in rows})  # one is there twice, by itself too
    if kind == "safetensors":
        return Comparison(num_images, *_weights_difference(served, path))
    results = run_alone(path, kind, served.inputs)
    largest = 0.0
    relative = 0.0
    for number, images in enumerate(served.inputs):
        if served.takes_list:
            expected_boxes = [own.numpy() for own in served.outputs(images)]
            found_boxes = [results[f"{number}/{place}"] for place in range(len(served.names))]
            scale = max(1.0, *(float(np.abs(own).max(initial=0)) for own in expected_boxes[:1]))
            difference = _boxes_difference(found_boxes, expected_boxes, scale)
            largest = max(largest, difference * scale)
            relative = max(relative, difference)
            continue
        for place, own in enumerate(served.outputs(images)):
            expected = own.numpy()
            found = results[f"{number}/{place}"]
            if found.shape != expected.shape:
                raise UserError(
                    f"the export gives {served.names[place]} of shape {found.shape}, the network "
                    f"{expected.shape}; take another --format, or report it"
                )
            if not expected.size:
                continue
            difference = float(np.abs(found - expected).max())
            largest = max(largest, difference)
            relative = max(relative, difference / max(1.0, float(np.abs(expected).max())))
    return Comparison(num_images, largest, relative)


def run_alone(path: Path, kind: Format, inputs: Sequence[Tensor]) -> dict[str, NDArray[np.generic]]:
    """Return what a file gives for inputs, by `<number of input>/<number of output>`.

    Raises:
        UserError: If the process fails.
    """
    if kind == "onnx":
        require("onnxruntime")
    with TemporaryDirectory() as folder:
        given = Path(folder) / "inputs.npz"
        gives = Path(folder) / "outputs.npz"
        arrays = {str(number): images.numpy() for number, images in enumerate(inputs)}
        np.savez(given, **arrays)  # type: ignore[arg-type]
        script = BEGIN + READERS[kind] + END
        command = [sys.executable, "-I", "-c", script, str(path.absolute()), str(given), str(gives)]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f"code {process.returncode}"]
            raise UserError(f"the export cannot be run: {lines[-1][:300]}; take another --format")
        with np.load(gives) as results:
            return dict(results)


def _boxes_difference(
    found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]], scale: float
) -> float:
    """Return how far boxes are from the nearest ones of the same label, as a share of the scale.

    Boxes of equal scores may come in any order, so each is compared with its nearest one.

    Args:
        found: boxes (n, 4), labels (n,) and scores (n,) of the file.
        expected: as found, of the network.
        scale: largest coordinate.

    Raises:
        UserError: If the numbers of boxes differ.
    """
    if len(found[0]) != len(expected[0]):
        raise UserError(
            f"the export finds {len(found[0])} boxes in an image, the network "
            f"{len(expected[0])}; give other images with --images if these are hardly decided"
        )
    if not len(found[0]):
        return 0.0
    rows = [
        np.concatenate([boxes / scale, labels[:, None], scores[:, None]], 1)
        for boxes, labels, scores in (found, expected)
    ]
    gaps = np.abs(rows[0][:, None] - rows[1][None]).max(-1)
    return float(max(gaps.min(0).max(), gaps.min(1).max()))


def _weights_difference(served: Served, path: Path) -> tuple[float, float]:
    stored = load_file(path)
    state = served.network.network.state_dict()
    if stored.keys() != state.keys():
        raise UserError(f"{path} lacks weights of the network; write it again")
    gaps = [float((stored[name].double() - state[name].double()).abs().max()) for name in stored]
    largest = max(gaps, default=0.0)
    return largest, largest

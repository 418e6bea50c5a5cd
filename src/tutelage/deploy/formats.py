"""Write a network in a format of another program."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.deploy.served import Served
from tutelage.errors import UserError, reason
from tutelage.io import write_tensors

Format = Literal["onnx", "torch-export", "torchscript", "safetensors"]
ENDINGS: dict[str, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "torchscript": ".torchscript.pt",
    "safetensors": ".safetensors",
}
INPUT = "images"


def write_format(served: Served, kind: Format, path: Path, opset: int | None) -> str:
    """Write the network, and return what wrote it, in words.

    Args:
        served: the network.
        kind: of file.
        path: of the file.
        opset: of ONNX; None leaves it to PyTorch.

    Raises:
        UserError: If the network cannot be written in this format, or a package is missing.
    """
    if kind == "safetensors":
        network = served.network.network
        write_tensors(path, dict(network.state_dict()))
        return "safetensors"
    # Warnings of the exporters are about their own future and about Python values in traces; that
    # the file gives the network's outputs is checked on real images of several sizes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "onnx":
            return _write_onnx(served, path, opset)
        if kind == "torchscript":
            return _write_torchscript(served, path)
        return _write_program(served, path)


def _write_onnx(served: Served, path: Path, opset: int | None) -> str:
    require("onnx", "onnxscript")
    problem: Exception | None = None
    if not served.takes_list:  # torch.export cannot follow how detectors choose their boxes
        try:
            torch.onnx.export(
                served.network,
                (_example(served),),
                path,
                input_names=[INPUT],
                output_names=served.names,
                dynamic_shapes=_dynamic_shapes(served),
                dynamo=True,
                external_data=False,
                opset_version=opset,
                verbose=False,
            )
            return "torch.export"
        except Exception as error:  # anything in the network's own code
            problem = error
    try:
        torch.onnx.export(
            served.network,
            (_example(served),),
            str(path),
            input_names=[INPUT],
            output_names=served.names,
            dynamic_axes=_dynamic_axes(served),
            dynamo=False,
            opset_version=opset,
        )
    except Exception as error:
        raise UserError(
            f"the network cannot be written as ONNX: {reason(problem or error)}; take --format "
            "torchscript or safetensors"
        ) from error
    return "TorchScript"


def _write_torchscript(served: Served, path: Path) -> str:
    if served.takes_list:
        raise UserError(
            "a traced detector would be one for images of one size; take --format onnx, in which "
            "sizes vary"
        )
    try:
        traced = torch.jit.trace(served.network, _example(served))  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(
            f"the network cannot be traced: {reason(error)}; take --format safetensors"
        ) from error
    torch.jit.save(traced, str(path))
    return "torch.jit.trace"


def _write_program(served: Served, path: Path) -> str:
    shapes = _dynamic_shapes(served)
    try:
        program = torch.export.export(served.network, (_example(served),), dynamic_shapes=shapes)
    except Exception as error:
        said = reason(error).splitlines()[0][:200]
        raise UserError(
            f"torch.export cannot follow this network ({said}); take --format onnx"
        ) from error
    torch.export.save(program, path)
    return "torch.export"


def _example(served: Served) -> Tensor:
    """Return a real input; a batch has two images, since one would be taken for a constant."""
    images = served.inputs[0]
    if served.takes_list or len(images) > 1:
        return images[:2] if not served.takes_list else images
    return torch.cat([images, images])


def _dynamic_shapes(served: Served) -> tuple[dict[int, Any], ...]:
    free: dict[int, Any] = {} if served.takes_list else {0: torch.export.Dim("batch")}
    if served.rule.size is None:
        first = 0 if served.takes_list else 1
        free |= {first + 1: torch.export.Dim.AUTO, first + 2: torch.export.Dim.AUTO}
    return (free,)


def _dynamic_axes(served: Served) -> dict[str, dict[int, str]]:
    free = {place: name for place, name in enumerate(served.shape()) if isinstance(name, str)}
    outputs = {name: {0: "boxes" if served.takes_list else "batch"} for name in served.names}
    if served.rule.size is None and not served.takes_list:
        outputs = {name: {**axes, 2: "rows", 3: "columns"} for name, axes in outputs.items()}
    return {INPUT: free, **outputs}


def require(*packages: str) -> None:
    """Raise unless packages of the extra `export` are installed.

    Raises:
        UserError: The message says how to install them.
    """
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} is not installed; pip install 'tutelage[export]'")

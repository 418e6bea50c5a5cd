"""Write a network in a format of another program."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.deploy.served import Served
from tutelage.errors import NotInstalledError, UserError, reason
from tutelage.io import write_tensors

Format = Literal["onnx", "torch-export", "torchscript", "safetensors"]
ENDINGS: dict[str, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "torchscript": ".torchscript.pt",
    "safetensors": ".safetensors",
}
INPUT = "images"
MIN_OPSET = 7  # of PyTorch's exporters,
MAX_OLD_OPSET = 20  # and the highest of the one on TorchScript


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
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")
        if kind == "onnx":
            return _write_onnx(served, path, opset)
        if kind == "torchscript":
            return _write_torchscript(served, path)
        return _write_program(served, path)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep what the exporter logs off the screen, such as tracebacks of conversions it gives up."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _write_onnx(served: Served, path: Path, opset: int | None) -> str:
    require("onnx", "onnxscript")
    _check_opset(opset)
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
            if opset in (None, opset_of(path)):
                return "torch.export"
            problem = ValueError(f"torch.export writes opset {opset_of(path)} and not {opset}")
        except Exception as error:  # anything in the network's own code
            problem = error
    try:
        if opset is not None and opset > MAX_OLD_OPSET:
            raise problem or ValueError(f"detectors are written with opsets to {MAX_OLD_OPSET}")
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
            f"the network cannot be written as ONNX: {reason(problem or error)}; {_onnx_fix(opset)}"
        ) from error
    if opset not in (None, opset_of(path)):
        raise UserError(
            f"PyTorch writes opset {opset_of(path)} of ONNX and not {opset}; {_onnx_fix(opset)}"
        )
    return "TorchScript"


def _check_opset(opset: int | None) -> None:
    from onnx.defs import onnx_opset_version

    highest = onnx_opset_version()
    if opset is not None and not MIN_OPSET <= opset <= highest:
        raise UserError(
            f"the opset (--opset) is a number from {MIN_OPSET} to {highest}, got {opset}"
        )


def opset_of(path: Path) -> int:
    """Return the opset of an ONNX file."""
    import onnx

    opsets = onnx.load(str(path), load_external_data=False).opset_import
    return int(next(entry.version for entry in opsets if entry.domain in ("", "ai.onnx")))


def _onnx_fix(opset: int | None) -> str:
    if opset is not None:
        return "leave --opset out, or give another one"
    return "take --format torchscript or safetensors"


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
        NotInstalledError: If one is missing; the message says how to install it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise NotInstalledError("ONNX", package)

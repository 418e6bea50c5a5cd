"""Write the student of a run in a format of another program, checked on real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from tutelage.core.prediction import DescribesOutputs
from tutelage.deploy.check import compare
from tutelage.deploy.formats import ENDINGS, Format, opset_of, require, write_format
from tutelage.deploy.int8 import (
    SessionNetwork,
    accuracy,
    drop,
    int8_parts,
    open_session,
    quantize,
)
from tutelage.deploy.latency import BATCHES, Call, latencies
from tutelage.deploy.predictor import Predictor, load
from tutelage.deploy.samples import images_of
from tutelage.deploy.served import Served, check_exported, served
from tutelage.engine.dry_run import num_parameters
from tutelage.errors import UserError
from tutelage.io import atomic, expanded, write_json
from tutelage.provenance import provenance
from tutelage.recipes import parse_recipe

TOLERANCE = 1e-4


def export(
    run: str | Path,
    kind: Format = "onnx",
    *,
    out: str | Path | None = None,
    images: Sequence[str] | None = None,
    opset: int | None = None,
    int8: bool = False,
    tolerance: float = TOLERANCE,
    latency: bool = True,
) -> dict[str, Any]:
    """Write the student of a finished run, compare it with the network, and return a record of it.

    The file takes images in [0, 1]; mean, standard deviation and a fitted temperature are inside
    (safetensors holds weights alone). It is run in a process of its own on real images; where it
    differs, there is no file. The record is also written beside it, as `<file>.json`.

    Args:
        run: folder of a finished run.
        kind: `onnx`, `torch-export`, `torchscript` or `safetensors`.
        out: of the file; None is `RUN/export/student.<ending>`.
        images: files and folders to compare on; None takes test images of the run's data.
        opset: of ONNX; None leaves it to PyTorch.
        int8: write a quantized ONNX file too, `<file>-int8.onnx`.
        tolerance: largest difference, as a share of the largest number of an output, or of 1.
        latency: measure how long teacher, student and export take.

    Raises:
        UserError: If the run is none of images, a package is missing, the format cannot hold the
            network, or the export differs by more than the tolerance.
    """
    if kind not in get_args(Format):
        raise UserError(f"there is no format {kind!r}; known are {list(get_args(Format))}")
    if kind != "onnx" and (int8 or opset is not None):
        raise UserError("--int8 and --opset are for --format onnx; leave them out")
    if not tolerance >= 0:  # also NaN
        raise UserError(f"the tolerance is a number from 0 on, got {tolerance:g}")
    if kind == "onnx":
        require("onnx", "onnxscript", "onnxruntime")
    if out is not None:
        _check_out(expanded(out), kind)
    model = load(run)
    check_exported(model)
    parts = int8_parts(model) if int8 else None
    what = served(model, images_of(model, images))
    path = model.folder / "export" / f"student{ENDINGS[kind]}" if out is None else Path(out)
    path = expanded(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = _written(what, kind, path, opset, tolerance)
    record |= _description(what, model, kind)
    record["parameters"] = num_parameters(what.network)
    calls = {"student": _torch_call(what.network, what)}
    if kind == "onnx":
        calls["student, onnxruntime"] = _session_call(path, what)
    if parts is not None:
        small = path.with_name(f"{path.stem}-int8.onnx")
        with atomic(small) as temporary:
            num_images = quantize(path, temporary, parts["train"])  # type: ignore[arg-type]
        before = accuracy(what.network, model.task, parts)
        after = accuracy(SessionNetwork(small), model.task, parts)
        record["int8"] = {
            "file": str(small),
            "bytes": small.stat().st_size,
            "calibration_images": num_images,
            "monitor": model.task.monitor,
            "validation": drop(before, after),
        }
        calls["student, int8"] = _session_call(small, what)
    if latency:
        record["latency_ms"] = _latency(model, what, calls)
    record["provenance"] = provenance()
    write_json(path.with_name(f"{path.name}.json"), record)
    return record


def _check_out(path: Path, kind: Format) -> None:
    """Refuse a folder, and a file of another kind, which would be lost."""
    if path.is_dir():
        raise UserError(f"--out takes a file, and {path} is a folder; give {path / 'student'}")
    ending = Path(f"student{ENDINGS[kind]}").suffix
    if path.is_file() and path.suffix not in ("", ending):
        raise UserError(f"{path} is there and is no {ending} file; choose another --out")


def _written(
    what: Served, kind: Format, path: Path, opset: int | None, tolerance: float
) -> dict[str, Any]:
    """Write the file if it gives what the network gives."""
    with atomic(path) as temporary:
        writer = write_format(what, kind, temporary, opset)
        found = compare(what, kind, temporary)
        if not found.relative <= tolerance:  # also NaN
            raise UserError(
                f"the {kind} file differs from the network by {found.relative:.3g} on real images, "
                f"more than the tolerance of {tolerance:g}, so it is not kept; take another "
                "--format, or a larger --tolerance if that is enough"
            )
    return {
        "file": str(path),
        "format": kind,
        "bytes": path.stat().st_size,
        "writer": writer,
        "opset": opset_of(path) if kind == "onnx" else None,
        "check": {
            "images": found.num_images,
            "largest_difference": found.largest,
            "relative_difference": found.relative,
            "tolerance": tolerance,
        },
    }


def _description(what: Served, model: Predictor, kind: Format) -> dict[str, Any]:
    facts = model.facts
    task: Any = model.task
    is_inside = kind != "safetensors"
    return {
        "input": {
            "name": "images",
            "shape": what.shape(),
            "values": "float32 in [0, 1]",
            **what.rule.record(),
        },
        "outputs": what.names,
        "normalization": {"mean": facts.mean, "std": facts.std, "inside": is_inside},
        "temperature": {"value": model.temperature, "inside": is_inside},
        "classes": list(model.classes.names),
        "ids": None if model.classes.ids is None else list(model.classes.ids),
        "task": type(model.task).__name__,
        "decision": dict(task.output_info()) if isinstance(task, DescribesOutputs) else None,
    }


def _latency(model: Predictor, what: Served, calls: dict[str, Call]) -> dict[str, Any]:
    """Return medians in milliseconds, of the run's teachers too."""
    networks: dict[str, Call] = {}
    why = None
    try:
        networks = _teacher_calls(model.folder / "recipe.yaml", what)
    except UserError as error:  # its code or its files may be gone
        why = str(error)
    batches = BATCHES[:1] if what.takes_list or what.rule.size is None else BATCHES
    median = latencies({**networks, **calls}, batches)
    return {"threads": 1, "median": median, "without_teacher": why}


def _teacher_calls(resolved: Path, what: Served) -> dict[str, Call]:
    """Return calls of a run's teachers by name; none of a run that was made in Python."""
    networks: dict[str, Call] = {}
    if not resolved.is_file() or resolved.read_text(encoding="utf-8").startswith("Recipe("):
        return networks
    recipe = parse_recipe(resolved).build()
    configs = dict(recipe.teachers or {})
    if recipe.teacher is not None:
        configs["teacher"] = recipe.teacher
    for name, config in configs.items():
        if config.model is not None:
            networks[name] = _torch_call(config.model.eval(), what)
    return networks


def _torch_call(network: torch.nn.Module, what: Served) -> Call:
    def run(batch: int) -> Any:
        images = _images(what, batch)
        with torch.no_grad():
            is_bare = what.takes_list and network is not what.network
            return network([images]) if is_bare else network(images)

    return run


def _session_call(path: Path, what: Served) -> Call:
    session = open_session(path)
    name = session.get_inputs()[0].name

    def run(batch: int) -> Any:
        return session.run(None, {name: _images(what, batch).numpy()})

    return run


def _images(what: Served, batch: int) -> torch.Tensor:
    """Return so many real images, repeated if there are fewer."""
    first = what.inputs[0]
    if what.takes_list:
        return first
    return first.repeat(-(-batch // len(first)), 1, 1, 1)[:batch].contiguous()

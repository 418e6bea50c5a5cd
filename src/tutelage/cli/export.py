"""`tutelage export`: the student of a finished run for other programs, checked and timed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from tutelage.cli._parser import Commands, add_command

FORMATS = ("onnx", "torch-export", "torchscript", "safetensors")
EXAMPLES = """
tutelage export runs/flowers
tutelage export runs/flowers --int8
tutelage export runs/flowers --format torch-export --images photos/ --out flowers.pt2
"""


def register(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands,
        "export",
        "write a finished run's student as ONNX or for PyTorch, checked",
        examples=EXAMPLES,
    )
    command.add_argument("source", metavar="RUN", help="folder of a finished run")
    command.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    command.add_argument(
        "--out", metavar="FILE", help="where to write (default: RUN/export/student.<ending>)"
    )
    command.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        help="files or folders to compare on (default: test images of the run's data)",
    )
    command.add_argument("--opset", type=int, help="of ONNX (default: PyTorch's)")
    command.add_argument(
        "--int8", action="store_true", help="quantize too, with accuracy before and after"
    )
    command.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest difference, as a share of the largest number of an output (default 1e-4)",
    )
    command.add_argument("--no-latency", action="store_true", help="measure no times")
    command.add_argument("--json", action="store_true", help="print the record as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Export, and print what was written, how far it is from the network, and how fast it is."""
    from tutelage.deploy.export import export

    record = export(
        arguments.source,
        arguments.format,
        out=arguments.out,
        images=arguments.images,
        opset=arguments.opset,
        int8=arguments.int8,
        tolerance=arguments.tolerance,
        latency=not arguments.no_latency,
    )
    print(json.dumps(record) if arguments.json else "\n".join(_lines(record)))
    return 0


def _lines(record: Mapping[str, Any]) -> list[str]:
    check = record["check"]
    opset = "" if record["opset"] is None else f"opset {record['opset']}, "
    shape = " × ".join(str(side) for side in record["input"]["shape"])
    inside = (
        "inside" if record["normalization"]["inside"] else "not inside; see the .json beside it"
    )
    lines = [
        f"{record['file']}  {_size(record['bytes'])}, {opset}written by {record['writer']}",
        f"  images {shape} in [0, 1] → {', '.join(record['outputs'])}; mean and std {inside}",
        *([] if record["decision"] is None else [f"  {record['decision']['text']}"]),
        f"  run by itself on {check['images']} images: largest difference "
        f"{check['largest_difference']:.2g}, relative {check['relative_difference']:.2g} "
        f"(tolerance {check['tolerance']:g})",
    ]
    if "int8" in record:
        int8 = record["int8"]
        monitor = int8["monitor"]
        before = int8["validation"]["before"][monitor]
        after = int8["validation"]["after"][monitor]
        lines.append(
            f"{int8['file']}  {_size(int8['bytes'])}, calibrated on {int8['calibration_images']} "
            f"training images: validation {monitor} {before:.4g} → {after:.4g}"
        )
    if "latency_ms" in record:
        lines += _latency_lines(record["latency_ms"]["median"])
        why = record["latency_ms"]["without_teacher"]
        if why is not None:
            lines.append(f"  the teacher was not timed: {why}")
    return lines


def _latency_lines(median: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a table of medians.

    >>> print("\\n".join(_latency_lines({"student": {"1": 0.5, "32": 8.25}})))
    ms a call, median, one thread           batch 1    batch 32
      student                                   0.5        8.25
    """
    batches = list(next(iter(median.values())))
    head = "".join(f"{'batch ' + batch:>12}" for batch in batches)
    lines = [f"{'ms a call, median, one thread':<35}{head}"]
    for name, values in median.items():
        row = "".join(f"{value:>12.4g}" for value in values.values())
        lines.append(f"{'  ' + name:<35}{row}")
    return lines


def _size(count: int) -> str:
    """Return a number of bytes.

    >>> _size(1_250_000), _size(2_000)
    ('1.25 MB', '2 kB')
    """
    return f"{count / 1e6:.3g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB"

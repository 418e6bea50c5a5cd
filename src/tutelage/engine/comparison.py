"""A comparison's folder: compare.json, the same as CSV and npz; whoever draws it reads these files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.engine.files import write_json, write_text
from tutelage.engine.provenance import provenance
from tutelage.similarity import CKAResult, ReliabilityReport

CELLS = ("value", "sd", "low", "high", "p_value")


def write_comparison(
    folder: Path, found: CKAResult, judged: Sequence[Sequence[ReliabilityReport]], titles: tuple[str, str]
) -> None:
    """Write the comparison of two networks' layers, each file whole or not at all.

    Args:
        folder: made if it is not there.
        found: values, intervals, counts, layer names.
        judged: one report a cell.
        titles: what to call the left (rows) and the right (columns) network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = {name: vars(found)[name] for name in CELLS}
    content: dict[str, Any] = {
        "left": titles[0],
        "right": titles[1],
        "rows": list(found.left),
        "columns": list(found.right),
        "samples": found.samples,
        "batches": found.batches,
        "skipped": found.skipped,
        "ids": found.ids,
        "degenerate": list(found.degenerate),
        "estimator": "linear CKA, centred, debiased",
        "confidence": found.confidence,
        **{name: None if values is None else _listed(values) for name, values in cells.items()},
        "verdict": [[cell.verdict for cell in row] for row in judged],
        "reason": [[" ".join(cell.reasons) for cell in row] for row in judged],
        "provenance": provenance(),
    }
    write_json(folder / "compare.json", content)
    write_text(folder / "compare.csv", _csv(content))
    arrays = {name: values.numpy() for name, values in cells.items() if values is not None}
    temporary = folder / "unfinished-compare.npz"
    np.savez(temporary, rows=np.array(found.left), columns=np.array(found.right), **arrays)
    temporary.replace(folder / "compare.npz")


def _csv(content: dict[str, Any]) -> str:
    """Return one line a cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name in (*CELLS, "verdict", "reason") if content[name] is not None]
    writer.writerow(["left", "right", *names])
    for i, row in enumerate(content["rows"]):
        for j, column in enumerate(content["columns"]):
            writer.writerow([row, column, *(content[name][i][j] for name in names)])
    return text.getvalue()


def _listed(values: Tensor) -> list[list[float | None]]:
    """Return nested lists for JSON, which has no NaN."""
    rows = torch.as_tensor(values).tolist()
    return [[value if math.isfinite(value) else None for value in row] for row in rows]

"""The files of a comparison: compare.json, which reports read, and the same as CSV and npz."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tutelage.io import atomic, write_json, write_text
from tutelage.provenance import provenance
from tutelage.similarity import CKAResult, ReliabilityReport


def write_comparison(
    folder: Path,
    result: CKAResult,
    reports: Sequence[Sequence[ReliabilityReport]],
    titles: tuple[str, str],
) -> None:
    """Write the comparison of two networks' layers, each file atomically.

    Args:
        folder: created if it does not exist.
        result: values, intervals, counts, layer names.
        reports: one for each cell.
        titles: what to call the left (rows) and the right (columns) network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = {
        "value": result.value,
        "sd": result.sd,
        "low": result.low,
        "high": result.high,
        "p_value": result.p_value,
    }
    numbers = {name: None if cell is None else _as_lists(cell) for name, cell in cells.items()}
    verdicts = {
        "verdict": [[report.verdict for report in row] for row in reports],
        "reason": [[" ".join(report.reasons) for report in row] for row in reports],
    }
    content: dict[str, Any] = {
        "left": titles[0],
        "right": titles[1],
        "rows": list(result.left),
        "columns": list(result.right),
        "samples": result.samples,
        "batches": result.batches,
        "skipped": result.skipped,
        "ids": result.ids,
        "degenerate": list(result.degenerate),
        "estimator": "linear CKA, centered, debiased",
        "confidence": result.confidence,
        **numbers,
        **verdicts,
        "provenance": provenance(),
    }
    write_json(folder / "compare.json", content)
    tables = {name: table for name, table in {**numbers, **verdicts}.items() if table is not None}
    write_text(folder / "compare.csv", _csv(result, tables))
    arrays: dict[str, Any] = {
        name: cell.numpy() for name, cell in cells.items() if cell is not None
    }
    with atomic(folder / "compare.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, rows=np.array(result.left), columns=np.array(result.right), **arrays)


def _csv(result: CKAResult, tables: dict[str, Any]) -> str:
    """Return one line for each cell, with the cell of every table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["left", "right", *tables])
    for i, row in enumerate(result.left):
        for j, column in enumerate(result.right):
            writer.writerow([row, column, *(table[i][j] for table in tables.values())])
    return text.getvalue()


def _as_lists(values: Tensor) -> list[list[float | None]]:
    """Return nested lists for JSON, which has no NaN."""
    return [[value if math.isfinite(value) else None for value in row] for row in values.tolist()]

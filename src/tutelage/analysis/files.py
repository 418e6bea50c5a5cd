"""The files of a comparison: compare.json, which reports read, and the same as CSV and npz."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tutelage.errors import UserError
from tutelage.io import atomic, write_json, write_text
from tutelage.provenance import provenance
from tutelage.similarity import CKAResult, ReliabilityReport


def write_comparison(
    folder: Path,
    result: CKAResult,
    reports: Sequence[Sequence[ReliabilityReport]],
    titles: tuple[str, str],
    permutations: int | None = None,
) -> None:
    """Write the comparison of two networks' layers: all of its files, or none.

    Args:
        folder: created if it does not exist.
        result: values, intervals, counts, layer names.
        reports: one for each cell.
        titles: what to call the left (rows) and the right (columns) network.
        permutations: random pairings behind the p-values, whose floor is 1 / (1 + permutations).

    Raises:
        UserError: If the folder or a file cannot be written.
    """
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
        "permutations": permutations,
        **numbers,
        **verdicts,
        "provenance": provenance(),
    }
    tables = {name: table for name, table in {**numbers, **verdicts}.items() if table is not None}
    arrays: dict[str, Any] = {
        "rows": np.array(result.left),
        "columns": np.array(result.right),
        **{name: cell.numpy() for name, cell in cells.items() if cell is not None},
    }
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Reports read compare.json, so it comes last: where it is, the others are.
        write_text(folder / "compare.csv", _csv(result, tables))
        with atomic(folder / "compare.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        write_json(folder / "compare.json", content)
    except BaseException as error:
        for name in ("compare.csv", "compare.npz"):
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
        if created:
            with suppress(OSError):  # there is none, or something else is in it
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise UserError(
            f"{folder} cannot be written ({error.strerror}); free some space or choose another "
            "folder"
        ) from None


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

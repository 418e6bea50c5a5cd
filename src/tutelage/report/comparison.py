"""The page of a comparison of two networks: which layers agree, and how reliable that number is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tutelage.analysis.formatting import MISSING, format_fixed, format_short
from tutelage.analysis.study_table import Cell
from tutelage.report.blocks import Block, Facts, Listing, Maps, Note, Page, Section, Table
from tutelage.report.folder import errors_of, read_json, subtitle
from tutelage.report.maps import VERDICTS, Certainty, LayerMaps, MapView, verdict_class
from tutelage.report.read_maps import read_comparison_map

T = TypeVar("T")

MAX_ROWS = 24  # a longer table is folded away
TEXT_COLUMNS = {"verdict", "reason"}


def comparison_page(folder: Path) -> Page:
    """Return the page of a comparison's folder: compare.json."""
    path = folder / "compare.json"
    layers = read_comparison_map(path)
    content = read_json(path)
    with errors_of(path):
        left = str(content["left"])
        right = str(content["right"])
        facts = _facts(content, layers)
        provenance = content["provenance"]
        if not isinstance(provenance, Mapping):
            raise TypeError("its provenance is no record")
        page_subtitle = subtitle(folder, provenance.get("time"))
    maps: list[Block] = [
        Note(_explanation(str(content["estimator"]))),
        Maps([MapView(layers, (left, right), "similarity")], _verdict_counts(layers)),
    ]
    partners = [
        *_partners(layers, left, right),
        *_partners(_transposed(layers), right, left),
    ]
    sections = [
        Section("What was compared", [facts]),
        Section("Every pair of layers", maps),
        Section("The closest partner of each layer", partners),
        Section("Environment", [Listing.of(provenance)]),
    ]
    return Page(f"{left} × {right}", page_subtitle, sections)


def _facts(content: Mapping[str, Any], layers: LayerMaps) -> Facts:
    samples = format_short(content["samples"])
    facts = [("samples", samples, f"in {format_short(content['batches'])} batches")]
    if content["skipped"]:
        facts.append(("skipped", format_short(content["skipped"]), "batches, too short to count"))
    shape = f"{len(layers.rows)} × {len(layers.columns)}"
    facts.append(("pairs of layers", shape, str(content["estimator"])))
    return Facts(facts)


def _verdict_counts(layers: LayerMaps) -> list[tuple[str, str, int]]:
    """Return (verdict, its shape, how many pairs have it); nothing if no pair has one."""
    counts = Counter(verdict for row in layers.certainty.verdict or [] for verdict in row)
    if not any(counts[verdict] for verdict in VERDICTS):
        return []
    return [(verdict, verdict_class(verdict), counts[verdict]) for verdict in VERDICTS]


def _explanation(estimator: str) -> str:
    return (
        f"Rows and columns are layers; a cell is their similarity ({estimator}). Point at a cell, "
        "or reach it with Tab and the arrow keys, for all that is known about it."
    )


def _partners(layers: LayerMaps, side: str, other_side: str) -> list[Block]:
    """Return a row for each layer of the rows, and below the table what the verdicts are due to."""
    partners = [_closest(layers, i) for i in range(len(layers.rows))]
    texts = [_cell_of(layers.certainty.reason, i, j) for i, j in enumerate(partners)]
    reasons = list(dict.fromkeys(text for text in texts if text))
    numbers = {text: str(number) for number, text in enumerate(reasons, 1)}
    columns = [
        f"layer of {side}",
        f"closest in {other_side}",
        "similarity",
        layers.certainty.interval,
        "p-value",
        "verdict",
        "reason",
    ]
    rows = []
    for i, (j, text) in enumerate(zip(partners, texts, strict=True)):
        # A reason that is that of every layer needs no number.
        number = numbers.get(text or "", MISSING) if len(reasons) > 1 else MISSING
        rows.append([*_partner_row(layers, i, j), Cell(number)])
    # What is unknown of every layer has no column.
    shown = [k for k in range(len(columns)) if k < 3 or any(row[k].text != MISSING for row in rows)]
    text_columns = [n for n, k in enumerate(shown) if k < 2 or columns[k] in TEXT_COLUMNS]
    name = f"Layers of {side}"
    table = Table(
        name=name,
        columns=[columns[k] for k in shown],
        rows=[[row[k] for k in shown] for row in rows],
        summary=f"{name}, {len(rows)} of them" if len(rows) > MAX_ROWS else None,
        text_columns=text_columns,
    )
    if len(reasons) == 1:
        return [table, Note(f"The reason of all verdicts: {reasons[0]}")]
    return [table, Listing([(numbers[text], text) for text in reasons])] if reasons else [table]


def _closest(layers: LayerMaps, i: int) -> int | None:
    """Return the column of the highest value of a row, the first of several; None without one."""
    values = next(iter(layers.maps.values()))[i]
    known = [(value, -j) for j, value in enumerate(values) if value is not None]
    return -max(known)[1] if known else None


def _cell_of(matrix: Sequence[Sequence[T | None]] | None, i: int, j: int | None) -> T | None:
    return None if matrix is None or j is None else matrix[i][j]


def _partner_row(layers: LayerMaps, i: int, j: int | None) -> list[Cell]:
    if j is None:
        return [Cell(layers.rows[i]), *(Cell(MISSING) for _ in range(5))]
    value = next(iter(layers.maps.values()))[i][j]
    certainty = layers.certainty
    low = _cell_of(certainty.low, i, j)
    high = _cell_of(certainty.high, i, j)
    interval = MISSING
    if low is not None and high is not None:
        interval = f"{format_fixed(low, 3)} … {format_fixed(high, 3)}"
    p_value = _cell_of(certainty.p_value, i, j)
    verdict = _cell_of(certainty.verdict, i, j)
    return [
        Cell(layers.rows[i]),
        Cell(layers.columns[j]),
        Cell(format_fixed(value, 3), value),
        Cell(interval, low),
        Cell(_p_text(p_value, certainty.p_floor), p_value),
        Cell(verdict or MISSING),
    ]


def _p_text(p_value: float | None, floor: float | None) -> str:
    """Return a p-value; at its floor it can be any smaller, so it is an upper bound.

    >>> _p_text(0.0099, 0.0099), _p_text(0.3, 0.0099)
    ('≤ 0.010', '0.300')
    """
    if p_value is None:
        return MISSING
    is_floor = floor is not None and p_value <= floor * 1.000001
    return f"{'≤ ' * is_floor}{format_fixed(p_value, 3)}"


def _transposed(layers: LayerMaps) -> LayerMaps:
    """Return the maps with rows and columns exchanged."""
    certainty = layers.certainty
    return LayerMaps(
        rows=layers.columns,
        columns=layers.rows,
        samples=layers.samples,
        maps={title: _transpose(values) for title, values in layers.maps.items()},
        certainty=Certainty(
            low=None if certainty.low is None else _transpose(certainty.low),
            high=None if certainty.high is None else _transpose(certainty.high),
            p_value=None if certainty.p_value is None else _transpose(certainty.p_value),
            verdict=None if certainty.verdict is None else _transpose(certainty.verdict),
            reason=None if certainty.reason is None else _transpose(certainty.reason),
            interval=certainty.interval,
            p_floor=certainty.p_floor,
        ),
    )


def _transpose(matrix: Sequence[Sequence[T]]) -> list[list[T]]:
    return [list(column) for column in zip(*matrix, strict=True)]

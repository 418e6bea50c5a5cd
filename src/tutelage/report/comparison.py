"""The page of a comparison of two networks: which layers agree, and whether that number can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.report.blocks import Block, Cell, Facts, Listing, Maps, Note, Page, Section, Table
from tutelage.report.folder import read_json, understood
from tutelage.report.maps import VERDICTS, LayerMaps, View, read_comparison_map
from tutelage.report.numbers import NOTHING, described, fixed, moment, short

MOST_ROWS = 24  # a longer table is folded away


def comparison_page(folder: Path) -> Page:
    """Return the page of a comparison's folder: compare.json."""
    path = folder / "compare.json"
    layers, content = read_comparison_map(path), read_json(path)
    with understood(path):
        sides = (str(content["left"]), str(content["right"]))
        facts, provenance = _facts(content, layers), content["provenance"]
        if not isinstance(provenance, Mapping):
            raise TypeError("its provenance is no record")
        told = [str(folder)] + ([moment(provenance["time"])] if "time" in provenance else [])
    maps: list[Block] = [
        Note(_reading(str(content["estimator"]))),
        Maps([View(layers, sides, "similarity")], _verdicts(layers)),
    ]
    nearest = [_nearest(layers, sides, turned) for turned in (False, True)]
    sections = [
        Section("What was compared", [facts]),
        Section("Every pair of layers", maps),
        Section("The closest partner of each layer", nearest),
        Section("Environment", [Listing(described(provenance))]),
    ]
    return Page(f"{sides[0]} × {sides[1]}", " · ".join(told), sections)


def _facts(content: Mapping[str, Any], layers: LayerMaps) -> Facts:
    shape = f"{len(layers.rows)} × {len(layers.columns)}"
    facts = [("samples", short(content["samples"]), f"in {short(content['batches'])} batches")]
    if content["skipped"]:
        facts.append(("skipped", short(content["skipped"]), "batches, too short to count"))
    return Facts([*facts, ("pairs of layers", shape, str(content["estimator"]))])


def _verdicts(layers: LayerMaps) -> list[tuple[str, int]]:
    """Return how many pairs have each verdict."""
    if layers.certainty.verdict is None:
        return []
    found = Counter(verdict for row in layers.certainty.verdict for verdict in row)
    return [(verdict, found[verdict]) for verdict in VERDICTS] if any(found[verdict] for verdict in VERDICTS) else []


def _reading(estimator: str) -> str:
    return (
        f"Rows and columns are layers; a cell is their similarity ({estimator}). Point at a cell, or reach it with Tab "
        "and the arrow keys, for all that is known about it."
    )


def _nearest(layers: LayerMaps, sides: tuple[str, str], turned: bool) -> Table:
    """Return a row for each layer: its closest partner on the other side, and how far that can be trusted."""
    values, certainty = next(iter(layers.maps.values())), layers.certainty
    names, partners = (layers.columns, layers.rows) if turned else (layers.rows, layers.columns)
    rows = []
    for k, name in enumerate(names):
        cells = [(i, k) if turned else (k, i) for i in range(len(partners))]
        ranked = [(value, -n) for n, (i, j) in enumerate(cells) if (value := values[i][j]) is not None]
        if not ranked:
            rows.append([Cell(name), *(Cell(NOTHING) for _ in range(6))])
            continue
        best = -max(ranked)[1]
        i, j = cells[best]
        low, high = (None if edge is None else edge[i][j] for edge in (certainty.low, certainty.high))
        p = None if certainty.p_value is None else certainty.p_value[i][j]
        interval = NOTHING if low is None or high is None else f"{fixed(low, 3)} … {fixed(high, 3)}"
        verdict, reason = (None if w is None else w[i][j] for w in (certainty.verdict, certainty.reason))
        row = [Cell(name), Cell(partners[best]), Cell(fixed(values[i][j], 3), values[i][j]), Cell(interval, low)]
        rows.append([*row, Cell(fixed(p, 3), p), Cell(verdict or NOTHING), Cell(reason or NOTHING)])
    one, other = reversed(sides) if turned else sides
    columns = [
        f"layer of {one}",
        f"closest in {other}",
        "similarity",
        certainty.interval,
        "p-value",
        "verdict",
        "reason",
    ]
    folded = f"Layers of {one}, {len(rows)} of them" if len(rows) > MOST_ROWS else None
    there = [k for k in range(len(columns)) if k < 3 or any(row[k].text != NOTHING for row in rows)]
    words = [n for n, k in enumerate(there) if k in (0, 1, 5, 6)]
    shown = [[row[k] for k in there] for row in rows]
    return Table(f"Layers of {one}", [columns[k] for k in there], shown, folded, words)

"""Tables of what runs, data loading and accumulation cost beside code by hand."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.timing import RESULTS
from tutelage.analysis.formatting import markdown_table


def train_loop_table() -> str:
    """Return whole runs over those by hand, from the first step on and with what is around it."""
    content = _content("train_loop")
    lines = [
        [name, *(f"{row[part]['by_hand_ms'] / 1e3:.1f} s, {_times(row[part])}" for part in row)]
        for name, row in content["rows"].items()
    ]
    parts = next(iter(content["rows"].values()))
    titles = {"epochs": "epochs: by hand, times ours", "run": "whole run: by hand, times ours"}
    return markdown_table(["", *(titles[part] for part in parts)], lines)


def accumulation_table() -> str:
    """Return memory and time of a step by the number of pieces."""
    rows = _content("accumulation")["rows"]
    whole = rows["1"]["ms"]
    lines = [
        [
            pieces,
            f"{row['activations_mib']:.0f}",
            f"{row['peak_mib']:.0f}",
            f"{row['ms'] / whole:.2f}",
        ]
        for pieces, row in rows.items()
    ]
    header = ["pieces", "MiB of activations", "MiB at the peak", "time over the whole batch"]
    return markdown_table(header, lines)


def data_speed_table() -> str:
    """Return the ratios to torchvision, to code by hand and to the system's own calls."""
    ratios = _content("data_speed")["ratios"]
    lines = []
    for name, value in ratios.items():
        low, high = value["quartile1"], value["quartile3"]
        lines.append([name, f"{value['median']:.2f} [{low:.2f}, {high:.2f}]"])
    return markdown_table(["measured", "median [quartiles]"], lines)


def _times(row: dict[str, Any]) -> str:
    times = row["tutelage / by hand"]
    return f"{times['median']:.2f}× [{times['quartile1']:.2f}, {times['quartile3']:.2f}]"


def _content(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content

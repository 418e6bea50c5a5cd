"""Plain text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def figures_line(figures: Mapping[str, float]) -> str:
    """Return figures on one line.

    >>> figures_line({"top1": 0.91234, "count": 100.0})
    'top1 0.9123  count 100'
    """
    return "  ".join(f"{name} {value:.4g}" for name, value in figures.items())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, the first one to the left.

    >>> print(table(["name", "n"], [["a", "10"], ["bc", "7"]]))
    name   n
    a     10
    bc     7
    """
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = []
    for line in (header, *rows):
        first = line[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return "\n".join(lines)

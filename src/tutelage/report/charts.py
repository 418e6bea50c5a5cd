"""Line charts and strips of points, laid out as SVG; the page draws them without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.report.colours import DASHES, LINES
from tutelage.report.numbers import short

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 350, 10, 184
DOTS = 12  # a line of at most so many points shows them
STRIP_ROW = 42


@dataclass(frozen=True)
class Series:
    """One line: points (x, y), and below and above each point the edge of its spread."""

    name: str
    points: Sequence[tuple[float, float]]
    edges: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Stroke:
    """How a line is drawn: colour and dashes both tell it apart."""

    colour: str
    dashes: str

    @classmethod
    def of(cls, index: int) -> Stroke:
        """Return the stroke of the line number `index`."""
        return cls(LINES[index % len(LINES)], DASHES[index % len(DASHES)])


@dataclass(frozen=True)
class Line:
    """A series as SVG paths."""

    path: str
    band: str
    dots: Sequence[tuple[float, float]]
    stroke: Stroke


@dataclass(frozen=True)
class Dot:
    """A point of a strip, with the text that names it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Strip:
    """One row of a strip chart: points, their mean, and an interval of it."""

    name: str
    y: float
    dots: Sequence[Dot]
    mean: float | None
    interval: tuple[float, float] | None
    stroke: Stroke


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn.

    Attributes:
        title: heading.
        told: the chart in words.
        height: of the drawing; the width is the same for all.
        x_ticks, y_ticks: (place, label).
        lines, strips: what is drawn.
        rule: place of a vertical line on the x axis, and its name.
        data: for the script that reads values off; None without one.
    """

    title: str
    told: str
    height: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]] = ()
    lines: Sequence[Line] = ()
    strips: Sequence[Strip] = ()
    rule: tuple[float, str] | None = None
    data: dict[str, Any] | None = None


@dataclass(frozen=True)
class Axis:
    """Maps values to places."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return where a value lies."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers between two values.

    >>> ticks(0, 150), ticks(0.71, 0.93)
    ([0.0, 50.0, 100.0, 150.0], [0.75, 0.8, 0.85, 0.9])
    """
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    title: str, series: Sequence[Series], rule: tuple[float, str] | None = None, strokes: Sequence[Stroke] = ()
) -> Chart:
    """Return a chart of lines over epochs.

    Args:
        title: heading, with the unit.
        series: lines, each with one point or more.
        rule: an epoch to mark with a vertical line, and its name.
        strokes: one for each line; by default a plain line for one and the palette for more.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points] + [y for line in series for edge in line.edges for y in edge]
    x_axis, y_axis = Axis(*_wide(xs, 0.0), LEFT, RIGHT), Axis(*_wide(ys, 0.06), BOTTOM, TOP)
    strokes = strokes or ([Stroke(LINES[1], "")] if len(series) == 1 else [Stroke.of(i) for i in range(len(series))])
    whole = [x for x in ticks(x_axis.low, x_axis.high) if x == int(x)]
    return Chart(
        title,
        "; ".join(_tell(line, len(series) > 1) for line in series),
        HEIGHT,
        [(x_axis.place(x), short(x)) for x in whole],
        [(y_axis.place(y), f"{y:g}".replace("-", "−")) for y in ticks(y_axis.low, y_axis.high)],
        [_line(line, stroke, (x_axis, y_axis)) for line, stroke in zip(series, strokes, strict=True)],
        rule=None if rule is None else (x_axis.place(rule[0]), rule[1]),
        data={
            "axis": [x_axis.low, x_axis.high, LEFT, RIGHT, WIDTH],
            "series": [
                {"name": line.name, "points": [_read(p, line.edges, i) for i, p in enumerate(line.points)]}
                for line in series
            ],
        },
    )


def strip_chart(
    title: str, rows: Sequence[tuple[Series, tuple[float, float] | None]], strokes: Sequence[Stroke], zero: bool = False
) -> Chart:
    """Return one row of points for each series, on one axis.

    Args:
        title: heading, with the unit.
        rows: a series (points are (label, value), such as the seed) and the interval of its mean, if there is one.
        strokes: one for each row.
        zero: mark zero with a vertical line.
    """
    values = [y for line, edges in rows for y in [*(value for _, value in line.points), *(edges or ())]]
    axis = Axis(*_wide([*values, 0.0] if zero else values, 0.06), 12, RIGHT)
    strips, told = [], []
    for i, ((line, edges), stroke) in enumerate(zip(rows, strokes, strict=True)):
        y = TOP + STRIP_ROW * i + 28
        dots = [Dot(axis.place(v), y, f"{line.name}, seed {seed:g}: {v:.4g}") for seed, v in line.points]
        mean = sum(value for _, value in line.points) / len(line.points)
        interval = None if edges is None else (axis.place(edges[0]), axis.place(edges[1]))
        strips.append(Strip(line.name, y, dots, axis.place(mean), interval, stroke))
        told.append(f"{line.name}: " + ", ".join(f"{value:.4g}" for _, value in line.points))
    height = TOP + STRIP_ROW * len(rows) + 26
    marks = [(axis.place(x), f"{x:g}".replace("-", "−")) for x in ticks(axis.low, axis.high)]
    return Chart(
        title, "; ".join(told), height, marks, strips=strips, rule=(axis.place(0.0), "no difference") if zero else None
    )


def _wide(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        half = 0.5 if margin == 0.0 else abs(low) * 0.1 or 0.5
        return low - half, high + half
    return low - margin * (high - low), high + margin * (high - low)


def _line(series: Series, stroke: Stroke, axes: tuple[Axis, Axis]) -> Line:
    x_axis, y_axis = axes
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in series.points]
    band = ""
    if series.edges:
        lower = [(x_axis.place(x), y_axis.place(low)) for (x, _), (low, _) in _pairs(series)]
        upper = [(x_axis.place(x), y_axis.place(high)) for (x, _), (_, high) in _pairs(series)]
        band = _path([*lower, *reversed(upper)]) + "Z"
    return Line(_path(places), band, places if len(places) <= DOTS else (), stroke)


def _pairs(series: Series) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return list(zip(series.points, series.edges, strict=True))


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in places)


def _read(point: tuple[float, float], edges: Sequence[tuple[float, float]], index: int) -> list[float]:
    values = [*point, *(edges[index] if edges else ())]
    return [float(f"{value:.6g}") for value in values]


def _tell(series: Series, named: bool) -> str:
    (first_x, first), (last_x, last) = series.points[0], series.points[-1]
    lead = f"{series.name} " if named else ""
    if len(series.points) == 1:
        return f"{lead}{first:.4g} at epoch {first_x:g}"
    return f"{lead}from {first:.4g} at epoch {first_x:g} to {last:.4g} at epoch {last_x:g}"

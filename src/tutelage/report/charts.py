"""Line charts and strips of points, laid out as SVG; the page draws them without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.analysis.formatting import format_short
from tutelage.report.colors import DASHES, LINES

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 350, 10, 184
ROOM = 8  # between the frame and the first epoch, which would be cut in half otherwise
MAX_DOTS = 12  # a line of at most so many points shows them
STRIP_HEIGHT = 42

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: of the line.
        points: (x, y).
        bounds: (low, high) of the band around each point; empty for no band.
    """

    name: str
    points: Sequence[Point]
    bounds: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Stroke:
    """How a line is drawn; both color and dashes tell it apart."""

    color: str
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
    dots: Sequence[Point]
    stroke: Stroke


@dataclass(frozen=True)
class Dot:
    """A point of a strip, with the text that names it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Strip:
    """One row of a strip chart: points, their mean, and its interval."""

    name: str
    y: float
    dots: Sequence[Dot]
    mean: float
    interval: tuple[float, float] | None
    stroke: Stroke


@dataclass(frozen=True)
class Chart:
    """A chart ready to be drawn.

    Attributes:
        title: heading.
        description: the chart in words.
        height: of the drawing; the width is the same for all.
        x_ticks: (position, label).
        y_ticks: (position, label).
        lines: what a line chart draws.
        strips: what a strip chart draws.
        marker: position of a vertical line on the x axis, and its name.
        data: for the script that reads values off; None without one.
        x_label: what the x axis of a line chart counts.
    """

    title: str
    description: str
    height: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]] = ()
    lines: Sequence[Line] = ()
    strips: Sequence[Strip] = ()
    marker: tuple[float, str] | None = None
    data: dict[str, Any] | None = None
    x_label: str = "epoch"


@dataclass(frozen=True)
class Axis:
    """Maps values to positions."""

    low: float
    high: float
    start: float
    end: float

    def position(self, value: float) -> float:
        """Return where a value lies."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, maximum: int = 5) -> list[float]:
    """Return round numbers between two values.

    >>> ticks(0, 150), ticks(0.71, 0.93)
    ([0.0, 50.0, 100.0, 150.0], [0.75, 0.8, 0.85, 0.9])
    """
    smallest_step = (high - low) / maximum
    power = 10.0 ** math.floor(math.log10(smallest_step))
    steps = [power * factor for factor in (1, 2, 5, 10)]
    step = next(step for step in steps if step >= smallest_step * 0.999)
    # The tolerance lets a tick that equals an end of the range in up to rounding.
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def line_chart(
    title: str,
    series: Sequence[Series],
    marker: tuple[float, str] | None = None,
    strokes: Sequence[Stroke] = (),
    x_label: str = "epoch",
) -> Chart:
    """Return a chart of lines over epochs, from zero epochs on.

    Args:
        title: heading, with the unit.
        series: lines, each with one point or more.
        marker: an epoch to mark with a vertical line, and its name.
        strokes: one for each line; by default a plain line for one and the palette for more.
        x_label: what is counted, if it is not epochs.
    """
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [bound for line in series for bounds in line.bounds for bound in bounds]
    x_axis = Axis(min(0.0, *xs), max(1.0, *xs), LEFT + ROOM, RIGHT - ROOM)
    y_axis = Axis(*_padded_range(ys, 0.06), BOTTOM, TOP)
    if not strokes:
        strokes = [Stroke.of(i) for i in range(len(series))]
        if len(series) == 1:
            strokes = [Stroke(LINES[1], "")]
    lines = [
        _line(line, stroke, x_axis, y_axis) for line, stroke in zip(series, strokes, strict=True)
    ]
    epochs = [x for x in ticks(x_axis.low, x_axis.high) if x == int(x)]
    return Chart(
        title=title,
        description="; ".join(_describe(line, len(series) > 1, x_label) for line in series),
        height=HEIGHT,
        x_ticks=[(x_axis.position(x), format_short(x)) for x in epochs],
        y_ticks=_number_ticks(y_axis),
        lines=lines,
        marker=None if marker is None else (x_axis.position(marker[0]), marker[1]),
        data={
            "axis": [x_axis.low, x_axis.high, x_axis.start, x_axis.end, WIDTH],
            "series": [{"name": line.name, "points": _point_data(line)} for line in series],
            "x": x_label,
        },
        x_label=x_label,
    )


def strip_chart(
    title: str,
    rows: Sequence[tuple[Series, tuple[float, float] | None]],
    strokes: Sequence[Stroke],
    zero: bool = False,
) -> Chart:
    """Return one row of points for each series, on one axis.

    Args:
        title: heading, with the unit.
        rows: a series, whose points are (seed, value), and the interval of its mean, if any.
        strokes: one for each row.
        zero: whether zero is marked with a vertical line.
    """
    values = [y for series, _ in rows for _, y in series.points]
    values += [bound for _, interval in rows for bound in interval or ()]
    if zero:
        values.append(0.0)
    axis = Axis(*_padded_range(values, 0.06), 12, RIGHT)
    strips = []
    descriptions = []
    for i, ((series, interval), stroke) in enumerate(zip(rows, strokes, strict=True)):
        y = TOP + STRIP_HEIGHT * i + 28
        strips.append(_strip(series, interval, stroke, axis, y))
        texts = [f"{value:.4g}" for _, value in series.points]
        descriptions.append(f"{series.name}: " + ", ".join(texts))
    return Chart(
        title=title,
        description="; ".join(descriptions),
        height=TOP + STRIP_HEIGHT * len(rows) + 26,
        x_ticks=_number_ticks(axis),
        strips=strips,
        marker=(axis.position(0.0), "no difference") if zero else None,
    )


def _padded_range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return the ends of an axis: the range of the values and a share of it on either side."""
    low = min(values)
    high = max(values)
    if low == high:
        half = abs(low) * 0.1 or 0.5
        return low - half, high + half
    return low - margin * (high - low), high + margin * (high - low)


def _number_ticks(axis: Axis) -> list[tuple[float, str]]:
    values = ticks(axis.low, axis.high)
    return [(axis.position(value), f"{value:g}".replace("-", "−")) for value in values]


def _line(series: Series, stroke: Stroke, x_axis: Axis, y_axis: Axis) -> Line:
    points = [(x_axis.position(x), y_axis.position(y)) for x, y in series.points]
    band = ""
    if series.bounds:
        xs = [x for x, _ in points]
        lower = [(x, y_axis.position(low)) for x, (low, _) in zip(xs, series.bounds, strict=True)]
        upper = [(x, y_axis.position(high)) for x, (_, high) in zip(xs, series.bounds, strict=True)]
        band = _path([*lower, *reversed(upper)]) + "Z"
    return Line(_path(points), band, points if len(points) <= MAX_DOTS else (), stroke)


def _strip(
    series: Series, interval: tuple[float, float] | None, stroke: Stroke, axis: Axis, y: float
) -> Strip:
    dots = [
        Dot(axis.position(value), y, f"{series.name}, seed {seed:g}: {value:.4g}")
        for seed, value in series.points
    ]
    mean = sum(value for _, value in series.points) / len(series.points)
    if interval is not None:
        interval = (axis.position(interval[0]), axis.position(interval[1]))
    return Strip(series.name, y, dots, axis.position(mean), interval, stroke)


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points)


def _point_data(series: Series) -> list[list[float]]:
    """Return x, y and, if there is a band, its bounds for each point of a line."""
    data = []
    for i, point in enumerate(series.points):
        values = [*point, *series.bounds[i]] if series.bounds else [*point]
        data.append([float(f"{value:.6g}") for value in values])
    return data


def _describe(series: Series, with_name: bool, x_label: str) -> str:
    first_x, first = series.points[0]
    last_x, last = series.points[-1]
    name = f"{series.name} " if with_name else ""
    if len(series.points) == 1:
        return f"{name}{first:.4g} at {x_label} {first_x:g}"
    return f"{name}from {first:.4g} at {x_label} {first_x:g} to {last:.4g} at {x_label} {last_x:g}"

"""What a page is made of; each block names the template that draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tutelage.report.charts import Chart, Stroke
from tutelage.report.maps import View
from tutelage.report.panels import Photo


@dataclass(frozen=True)
class Facts:
    """A few figures in large type: (label, value, note)."""

    template: ClassVar[str] = "facts.html"
    facts: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Listing:
    """Pairs of text: versions, hardware."""

    template: ClassVar[str] = "listing.html"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        text: what is read.
        value: what it is sorted by; None sorts by the text, and last among numbers.
        strong: whether it stands out.
    """

    text: str
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by every column.

    Attributes:
        name: read by screen readers.
        columns: headers.
        rows: as many cells as there are columns; the first one is the row's name.
        folded: the line under which the table is folded away; None shows it.
        words: the columns that hold text, not numbers.
    """

    template: ClassVar[str] = "table.html"
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str | None = None
    words: Sequence[int] = (0,)


@dataclass(frozen=True)
class Charts:
    """Small charts side by side under one legend of (name, stroke)."""

    template: ClassVar[str] = "charts.html"
    charts: Sequence[Chart]
    legend: Sequence[tuple[str, Stroke]] = ()


@dataclass(frozen=True)
class Text:
    """A text as it is, folded away under its name; `printed` opens it on paper."""

    template: ClassVar[str] = "text.html"
    name: str
    text: str
    printed: bool = False


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    template: ClassVar[str] = "note.html"
    text: str


@dataclass(frozen=True)
class Maps:
    """Heat maps side by side; `verdicts` adds the meaning of the shapes, each with how many cells have it."""

    template: ClassVar[str] = "maps.html"
    maps: Sequence[View]
    verdicts: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Pictures:
    """Images, each with its panels side by side.

    Attributes:
        photos: the images.
        of: what lies over them: `boxes`, `masks` or `map`.
        least: the score from which on boxes are shown; None where there are none.
        legend: (name, colour) of the classes of masks.
    """

    template: ClassVar[str] = "pictures.html"
    photos: Sequence[Photo]
    of: str
    least: float | None = None
    legend: Sequence[tuple[str, str]] = ()


Block = Facts | Listing | Table | Charts | Text | Note | Maps | Pictures


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: the heading.
        told: one line under it.
        sections: from top to bottom.
    """

    title: str
    told: str
    sections: Sequence[Section]

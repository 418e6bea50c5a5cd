"""What a page is made of; each block names the template that draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tutelage.analysis.formatting import MISSING
from tutelage.analysis.study_table import Cell
from tutelage.report.charts import Chart, Stroke
from tutelage.report.maps import MapView
from tutelage.report.panels import PictureRow


@dataclass(frozen=True)
class Facts:
    """A few numbers in large type: (label, value, note)."""

    template: ClassVar[str] = "facts.html"
    facts: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Listing:
    """Pairs of text, such as versions and hardware."""

    template: ClassVar[str] = "listing.html"
    pairs: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Listing:
        """Return a record as pairs of text.

        >>> Listing.of({"python": "3.11", "packages": {"torch": "2.4"}, "gpu": None}).pairs
        [('python', '3.11'), ('packages', 'torch 2.4'), ('gpu', '–')]
        """
        return cls([(str(key), _text(value)) for key, value in record.items()])


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by every column.

    Attributes:
        name: read by screen readers.
        columns: headers.
        rows: as many cells as there are columns; the first one is the row's name.
        summary: the line under which the table is folded away; None shows it.
        text_columns: the columns that hold text, not numbers.
        caption: a heading over it; empty for none.
    """

    template: ClassVar[str] = "table.html"
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    summary: str | None = None
    text_columns: Sequence[int] = (0,)
    caption: str = ""


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
    """Heat maps side by side.

    Attributes:
        maps: what to show.
        verdicts: (verdict, its shape or nothing, number of cells with it).
        scale: of differences, whose colors go from minus this value to it; None is 0 to 1.
    """

    template: ClassVar[str] = "maps.html"
    maps: Sequence[MapView]
    verdicts: Sequence[tuple[str, str, int]] = ()
    scale: float | None = None


@dataclass(frozen=True)
class Pictures:
    """Images, each with its panels side by side.

    Attributes:
        rows: one for each image.
        overlay: what is drawn over the images.
        threshold: the score from which on boxes are shown; None without boxes.
        legend: (name, color) of the classes of masks.
    """

    template: ClassVar[str] = "pictures.html"
    rows: Sequence[PictureRow]
    overlay: Literal["boxes", "masks", "points", "map"]
    threshold: float | None = None
    legend: Sequence[tuple[str, str]] = ()


Block = Facts | Listing | Table | Charts | Text | Note | Maps | Pictures


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: the heading.
        subtitle: one line under it.
        sections: from top to bottom.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value)
    return str(value)

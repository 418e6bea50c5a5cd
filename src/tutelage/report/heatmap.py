"""Layer × layer heat maps as pictures, PNG or SVG; side by side in rows when there are several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import UserError
from tutelage.report.colours import background, ink, level
from tutelage.report.folder import kind_of, read_json, understood
from tutelage.report.maps import VERDICTS, LayerMaps, read_comparison_map, read_epoch_maps, read_study_maps
from tutelage.report.numbers import fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

MOST_INCHES = 15.0  # panels that do not fit side by side go to the next row
MOST_EPOCHS = 6
LETTER = 0.075  # inches of a letter of a layer's name
LONGEST_TITLE = 150
NUMBERS = 20  # a map with more layers has no numbers in its cells
MARKERS = dict(zip(VERDICTS, ("o", "^", "x"), strict=True))


@dataclass(frozen=True)
class Caption:
    """What stands around the panels: a heading, and whose layers the rows and the columns are."""

    title: str
    rows: str = "teacher"
    columns: str = "student"


def draw_layer_maps(source: Path, picture: Path) -> None:
    """Draw the maps of a study, one panel each.

    Args:
        source: layer_maps.json: `rows`, `columns` (layer names), `samples`, and `maps` by title.
        picture: the PNG or SVG to write.
    """
    layers = read_study_maps(source)
    title = f"Layers of teacher and student: linear CKA, debiased, {layers.samples} test images"
    draw(layers, Caption(title), picture)


def draw_epoch_maps(source: Path, picture: Path) -> None:
    """Draw the maps of a run, layer_maps.jsonl: at most six epochs, evenly spaced, with the first and the last."""
    layers = read_epoch_maps(source)
    titles = list(layers.maps)
    count = min(len(titles), MOST_EPOCHS)
    chosen = [titles[round(i * (len(titles) - 1) / max(count - 1, 1))] for i in range(count)]
    maps = {title: layers.maps[title] for title in chosen}
    title = f"Layers of teacher and student over training: CKA, {layers.samples} samples"
    draw(LayerMaps(layers.rows, layers.columns, layers.samples, maps), Caption(title), picture)


def draw_comparison(source: Path, picture: Path) -> None:
    """Draw the map of two networks, compare.json, with a shape for the verdict of each cell."""
    layers, content = read_comparison_map(source), read_json(source)
    with understood(source):
        sides = (str(content["left"]), str(content["right"]))
        title = f"{content['estimator']}, {layers.samples} samples"
    draw(layers, Caption(title, *sides), picture)


def write_picture(folder: Path, picture: Path) -> None:
    """Draw the heat maps of a run, a study or a comparison.

    Raises:
        UserError: the folder is none of these, or holds no layer map.
    """
    draws = {"run": draw_epoch_maps, "study": draw_layer_maps, "comparison": draw_comparison}
    names = {"run": "layer_maps.jsonl", "study": "layer_maps.json", "comparison": "compare.json"}
    kind = kind_of(folder)
    source = folder / names[kind]
    if not source.is_file():
        raise UserError(f"{folder} holds no layer map to draw ({source.name}); give --out a file that ends in .html")
    draws[kind](source, picture)


def draw(layers: LayerMaps, caption: Caption, picture: Path) -> None:
    """Draw maps of the same layers; the picture is whole or not there."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("pictures need matplotlib; install it with: pip install 'tutelage[demo]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    cell = (0.58, 0.46) if _numbered(layers) else (0.16, 0.16)
    rows, columns = [plain(name) for name in layers.rows], [plain(name) for name in layers.columns]
    width = cell[0] * len(columns) + LETTER * max(map(len, rows)) + 0.6
    height = cell[1] * len(rows) + LETTER * max(map(len, columns)) + 0.7
    across = min(len(layers.maps), max(1, int(MOST_INCHES / width)))
    down = math.ceil(len(layers.maps) / across)
    least = 0.09 * min(len(caption.title), LONGEST_TITLE)
    size = (max(width * across + 1.2, least), height * down + 0.8)
    figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    try:
        _panels(figure, [list(line) for line in axes], layers, caption)
        temporary = picture.with_name("unfinished-" + picture.name)
        picture.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, dpi=130)
        temporary.replace(picture)
    except OSError as error:
        raise UserError(f"{picture} cannot be written ({error.strerror}); choose another file") from None
    finally:
        pyplot.close(figure)


def _panels(figure: Figure, grid: Sequence[Sequence[Axes]], layers: LayerMaps, caption: Caption) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    axes = [axis for line in grid for axis in line]
    for n, (axis, (title, values)) in enumerate(zip(axes, layers.maps.items(), strict=False)):
        axis.set_title(plain(title), fontsize=10)
        axis.imshow(
            [[math.nan if value is None else value for value in row] for row in values],
            vmin=0,
            vmax=1,
            cmap=_ramp(),
            aspect="auto",
        )
        axis.set_xticks(range(len(layers.columns)), [plain(name) for name in layers.columns], rotation=90, fontsize=8)
        axis.set_yticks(range(len(layers.rows)), [plain(name) for name in layers.rows], fontsize=8)
        axis.set_ylabel(plain(caption.rows) if n % len(grid[0]) == 0 else "", fontsize=10)
        axis.set_xlabel(plain(caption.columns) if n + len(grid[0]) >= len(layers.maps) else "", fontsize=10)
        _cells(axis, layers, title)
    for axis in axes[len(layers.maps) :]:
        axis.axis("off")
    figure.colorbar(ScalarMappable(cmap=_ramp()), ax=axes, fraction=0.03, aspect=30, shrink=0.9)
    figure.suptitle(plain(caption.title, LONGEST_TITLE), fontsize=11)
    if layers.certainty.verdict is not None:
        shapes = [Line2D([], [], linestyle="", marker=m, color="black", label=name) for name, m in MARKERS.items()]
        figure.legend(handles=shapes, loc="outside lower center", ncols=len(shapes), fontsize=8, frameon=False)


def _cells(axis: Axes, layers: LayerMaps, title: str) -> None:
    """Write the numbers and the shapes of one panel."""
    verdicts = layers.certainty.verdict
    for i, row in enumerate(layers.maps[title]):
        for j, value in enumerate(row):
            at = level(value)
            colour = "#000000" if at is None else ink(background(at))
            if _numbered(layers):
                axis.text(j, i, fixed(value, 2), ha="center", va="center", fontsize=7, color=colour)
            verdict = None if verdicts is None else verdicts[i][j]
            if verdict in MARKERS:
                place = (j + 0.36, i - 0.34) if _numbered(layers) else (j, i)
                axis.plot(*place, marker=MARKERS[verdict], markersize=3.5, color=colour)


def plain(text: str, longest: int = 32) -> str:
    r"""Return a text that the plotting library takes as it is, with the middle left out when it is long.

    >>> plain("a$b$"), plain("encoder.layer.11.attention", 15)
    ('a\\$b\\$', 'encoder…tention')
    """
    half = longest // 2
    cut = text if len(text) <= longest else f"{text[:half]}…{text[-(longest - half - 1) :]}"
    return cut.replace("$", r"\$")


def _numbered(layers: LayerMaps) -> bool:
    return max(len(layers.rows), len(layers.columns)) <= NUMBERS


def _ramp() -> ListedColormap:
    from matplotlib.colors import ListedColormap

    return ListedColormap([background(at) for at in range(51)], name="page")

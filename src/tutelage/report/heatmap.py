"""Layer × layer heat maps as pictures, PNG or SVG; several of them side by side in rows.

Below them stand their differences to the first map, such as that before training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.drawing.colors import text_color
from tutelage.errors import NotInstalledError, UserError
from tutelage.io import atomic
from tutelage.report.colors import LEVELS, background, difference_background
from tutelage.report.folder import errors_of, folder_kind, read_json
from tutelage.report.labels import MAX_LENGTH, short_labels
from tutelage.report.maps import MARKED, LayerMaps, Numbers
from tutelage.report.read_maps import read_comparison_map, read_epoch_maps, read_study_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure, SubFigure

MAX_WIDTH = 15.0  # inches; panels that do not fit side by side go to the next row
MAX_EPOCHS = 6
LETTER_WIDTH = 0.075  # inches of a letter of a layer's name
MAX_TITLE_LENGTH = 150
MAX_NUMBERED_LAYERS = 20  # a map with more layers has no numbers in its cells
MAX_CAPTION_LENGTH = 48
MAX_PIXELS = 30_000  # of the longer side of a picture; a bigger one is drawn coarser
MARKERS = dict(zip(MARKED, ("^", "x"), strict=True))


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
    """Draw the maps of a run: at most six epochs, evenly spaced, with the first and the last.

    Args:
        source: layer_maps.jsonl.
        picture: the PNG or SVG to write.
    """
    layers = read_epoch_maps(source)
    titles = list(layers.maps)
    count = min(len(titles), MAX_EPOCHS)
    spacing = (len(titles) - 1) / max(count - 1, 1)
    chosen = [titles[round(i * spacing)] for i in range(count)]
    maps = {title: layers.maps[title] for title in chosen}
    title = f"Layers of teacher and student over training: CKA, {layers.samples} samples"
    draw(LayerMaps(layers.rows, layers.columns, layers.samples, maps), Caption(title), picture)


def draw_comparison(source: Path, picture: Path) -> None:
    """Draw the map of two networks, with a shape for the verdict of each cell.

    Args:
        source: compare.json.
        picture: the PNG or SVG to write.
    """
    layers = read_comparison_map(source)
    content = read_json(source)
    with errors_of(source):
        caption = Caption(
            title=f"{content['estimator']}, {layers.samples} samples",
            rows=str(content["left"]),
            columns=str(content["right"]),
        )
    draw(layers, caption, picture)


def write_picture(folder: Path, picture: Path) -> None:
    """Draw the heat maps of a run, a study or a comparison.

    Raises:
        UserError: If the folder is none of these, or holds no layer map.
    """
    drawers = {
        "run": (draw_epoch_maps, "layer_maps.jsonl"),
        "study": (draw_layer_maps, "layer_maps.json"),
        "comparison": (draw_comparison, "compare.json"),
    }
    draw_maps, name = drawers[folder_kind(folder)]
    if not (folder / name).is_file():
        raise UserError(
            f"{folder} holds no layer map to draw ({name}); give --out a file that ends in .html"
        )
    draw_maps(folder / name, picture)


def draw(layers: LayerMaps, caption: Caption, picture: Path) -> None:
    """Draw maps of the same layers, and their differences to the first one, atomically."""
    try:
        import matplotlib
    except ImportError as error:
        raise NotInstalledError(f"the picture {picture.name}", "matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    differences = layers.differences()
    groups = [layers] if differences is None else [layers, differences]
    across, width, height = _panel_grid(layers)
    downs = [math.ceil(len(group.maps) / across) for group in groups]
    title_width = 0.09 * min(len(caption.title), MAX_TITLE_LENGTH)
    size = (max(width * across + 1.2, title_width), height * sum(downs) + 0.8)
    figure = pyplot.figure(figsize=size, layout="constrained")
    try:
        figure.suptitle(plain(caption.title, MAX_TITLE_LENGTH), fontsize=11)
        parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=downs)
        for group, down, part in zip(groups, downs, parts[:, 0], strict=True):
            axes = part.subplots(down, across, squeeze=False)
            _draw_panels(part, [list(row) for row in axes], group, caption)
        if layers.certainty.verdict is not None:
            _draw_legend(figure)
        picture.parent.mkdir(parents=True, exist_ok=True)
        with atomic(picture) as temporary:
            dpi = min(130.0, MAX_PIXELS / max(size))
            figure.savefig(temporary, dpi=dpi, format=picture.suffix.lstrip("."))
    except OSError as error:
        raise UserError(
            f"{picture} cannot be written ({error.strerror}); choose another file"
        ) from None
    finally:
        pyplot.close(figure)


def _panel_grid(layers: LayerMaps) -> tuple[int, float, float]:
    """Return how many panels stand side by side, and the width and height of one in inches."""
    cell_width, cell_height = (0.58, 0.46) if _has_numbers(layers) else (0.16, 0.16)
    row_letters = max(len(name) for name in short_labels(layers.rows))
    column_letters = max(len(name) for name in short_labels(layers.columns))
    width = cell_width * len(layers.columns) + LETTER_WIDTH * row_letters + 0.6
    height = cell_height * len(layers.rows) + LETTER_WIDTH * column_letters + 0.7
    across = min(len(layers.maps), max(1, int(MAX_WIDTH / width)))
    return across, width, height


def _draw_panels(
    figure: SubFigure, grid: Sequence[Sequence[Axes]], layers: LayerMaps, caption: Caption
) -> None:
    """Draw maps of one scale, with the colors of the scale beside them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    across = len(grid[0])
    axes = [axis for row in grid for axis in row]
    sides = short_labels([caption.rows, caption.columns], MAX_CAPTION_LENGTH)
    titles = short_labels(list(layers.maps), MAX_CAPTION_LENGTH)
    for n, (axis, title) in enumerate(zip(axes, layers.maps, strict=False)):
        _draw_panel(axis, layers, title)
        axis.set_title(escaped(titles[n]), fontsize=10)
        # Only the outer panels say whose the layers are.
        axis.set_ylabel(escaped(sides[0]) if n % across == 0 else "", fontsize=10)
        is_lowest = n + across >= len(layers.maps)
        axis.set_xlabel(escaped(sides[1]) if is_lowest else "", fontsize=10)
    for axis in axes[len(layers.maps) :]:
        axis.axis("off")
    colors = ScalarMappable(Normalize(*_limits(layers)), cmap=_color_map(layers))
    figure.colorbar(colors, ax=axes, fraction=0.03, aspect=30, shrink=0.9)


def _draw_legend(figure: Figure) -> None:
    """Say what the shapes in the cells are."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=marker, color="black", label=verdict)
        for verdict, marker in MARKERS.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        frameon=False,
    )


def _draw_panel(axis: Axes, layers: LayerMaps, title: str) -> None:
    """Draw one map with the names of its layers, and the numbers and shapes of its cells."""
    values = layers.maps[title]
    low, high = _limits(layers)
    colors = _color_map(layers)
    axis.imshow(_without_none(values), vmin=low, vmax=high, cmap=colors, aspect="auto")
    columns = [escaped(name) for name in short_labels(layers.columns)]
    rows = [escaped(name) for name in short_labels(layers.rows)]
    axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    has_numbers = _has_numbers(layers)
    verdicts = layers.certainty.verdict
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            index = layers.level(value)
            color = "#000000" if index is None else text_color(_background(layers)(index))
            if has_numbers:
                text = layers.number(value)
                axis.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
            verdict = None if verdicts is None else verdicts[i][j]
            if verdict in MARKERS:
                # Beside the number, or in the middle where there is none.
                x, y = (j + 0.36, i - 0.34) if has_numbers else (j, i)
                axis.plot(x, y, marker=MARKERS[verdict], markersize=3.5, color=color)


def plain(text: str, maximum: int = MAX_LENGTH) -> str:
    r"""Return a text that matplotlib takes as it is, shortened when it is long.

    >>> plain("a$b$"), plain("encoder.layer.11.attention", 15)
    ('a\\$b\\$', 'enc.lay.11.atte')
    """
    return escaped(short_labels([text], maximum)[0])


def escaped(text: str) -> str:
    """Return a text without formulas, which matplotlib would typeset."""
    return text.replace("$", r"\$")


def _limits(layers: LayerMaps) -> tuple[float, float]:
    return (0.0, 1.0) if layers.scale is None else (-layers.scale, layers.scale)


def _background(layers: LayerMaps) -> Callable[[int], str]:
    return background if layers.scale is None else difference_background


def _without_none(values: Numbers) -> list[list[float]]:
    return [[math.nan if value is None else value for value in row] for row in values]


def _has_numbers(layers: LayerMaps) -> bool:
    return max(len(layers.rows), len(layers.columns)) <= MAX_NUMBERED_LAYERS


def _color_map(layers: LayerMaps) -> ListedColormap:
    from matplotlib.colors import ListedColormap

    return ListedColormap([_background(layers)(index) for index in range(LEVELS + 1)], name="page")

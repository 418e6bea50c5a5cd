"""Layer × layer heat maps, side by side."""

from __future__ import annotations

import json
from pathlib import Path


def draw_layer_maps(source: Path, picture: Path) -> None:
    """Draw the maps of a study, one panel each, with the value in every cell.

    Args:
        source: layer_maps.json: `rows`, `columns` (layer names), `samples`, and `maps` by title.
        picture: the PNG or SVG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    content = json.loads(source.read_text())
    rows, columns, maps = content["rows"], content["columns"], content["maps"]
    width = 0.7 * len(columns) + 0.9
    figure, axes = pyplot.subplots(
        1, len(maps), figsize=(width * len(maps) + 0.8, 0.6 * len(rows) + 1.5), squeeze=False, layout="constrained"
    )
    for axis, (title, values) in zip(axes[0], maps.items(), strict=True):
        image = axis.imshow(values, vmin=0, vmax=1, cmap="cividis")
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
        for i, line in enumerate(values):
            for j, value in enumerate(line):
                colour = "black" if value > 0.55 else "white"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes[0][0].set_ylabel("teacher")
    figure.supxlabel("student", fontsize=10)
    figure.colorbar(image, ax=axes[0].tolist(), shrink=0.8, label="CKA")
    figure.suptitle(
        f"Layers of teacher and student: linear CKA, debiased, {content['samples']} test images", fontsize=11
    )
    temporary = picture.with_name("unfinished-" + picture.name)
    figure.savefig(temporary, dpi=130)
    pyplot.close(figure)
    temporary.replace(picture)

"""Sections of pictures: what teacher and students predict beside the truth, where they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutelage.drawing.masks import NO_CLASS, class_color, class_name, is_background
from tutelage.report.blocks import Block, Note, Pictures, Section
from tutelage.report.matching import best_threshold
from tutelage.report.panels import PictureRow, map_panel, prediction_panel, truth_panel
from tutelage.report.point_panels import point_rows
from tutelage.report.previews import Preview, read_previews

BOXES = (
    "A found box counts when it overlaps a true one of its class by half (intersection over "
    "union); each true box is found once. The slider sets how sure a network must be; it starts "
    "where found and false boxes balance best over all pictures (the highest F1). Point at a box, "
    "or reach a picture with Tab and move with the arrow keys."
)
MASKS = (
    "Colors are the classes that are found, white lines the true outlines; gray has no true class. "
    "IoU is the mean over the classes of one picture, pixels the share that has the right class."
)
POINTS = (
    "Yellow circles are the true joints. A predicted one is found when it lies within 5 % of the "
    "picture's longer side of the truth, which is marked beside it where it is off; joints without "
    "a label are not drawn. Point at a joint for its name and distance."
)
MAPS = (
    "Which patches of the first of these images the student relates to the others as the teacher "
    "does: 1 is the same relations, 0 none in common (the mean over channels of a debiased, "
    "centered alignment of each patch)."
)


def picture_sections(runs: Sequence[tuple[str, Path]]) -> list[Section]:
    """Return the sections of the runs that saved pictures; none where none did.

    Args:
        runs: what to call the student, and the run's folder.
    """
    previews, classes = read_previews(runs)
    if not previews:
        return []
    sections = [Section("What they find", _predictions(previews, classes))]
    for preview in previews:
        if preview.maps:
            panels = [
                map_panel(f"{student} · {name}", values, preview)
                for (student, name), values in preview.maps.items()
            ]
            maps = Pictures([PictureRow.of(preview, panels)], overlay="map")
            sections.append(Section("Where student and teacher agree", [Note(MAPS), maps]))
    return sections


def _predictions(previews: Sequence[Preview], classes: Sequence[str]) -> list[Block]:
    if previews[0].truth.points is not None:
        return [Note(POINTS), Pictures(point_rows(previews, classes), overlay="points")]
    rows = []
    matches = []
    for preview in previews:
        panels = [truth_panel(preview.truth, classes)]
        for prediction in preview.predictions:
            panel, matched = prediction_panel(prediction, preview.truth, classes)
            panels.append(panel)
            if matched is not None:
                matches.append(matched)
        rows.append(PictureRow.of(preview, panels))
    if matches:
        threshold = best_threshold(matches)
        return [Note(BOXES), Pictures(rows, overlay="boxes", threshold=threshold)]
    return [Note(MASKS), Pictures(rows, overlay="masks", legend=_legend(previews, classes))]


def _legend(previews: Sequence[Preview], classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, color) of the classes that any mask shows."""
    indices: set[int] = set()
    for preview in previews:
        for annotation in (preview.truth, *preview.predictions):
            if annotation.mask is not None:
                indices.update(int(index) for index in set(annotation.mask.flat))
    legend = []
    for index in sorted(indices - {NO_CLASS}):
        name = class_name(classes, index)
        if not is_background(name):
            legend.append((name, class_color(index)))
    return legend

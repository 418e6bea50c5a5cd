"""Sections of pictures: what teacher and students find beside what is there, and where they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutelage.report.blocks import Block, Note, Pictures, Section
from tutelage.report.kept import Shot, read_shots
from tutelage.report.masks import colour, is_clear, named
from tutelage.report.matching import balanced
from tutelage.report.panels import Photo, found_panel, map_panel, truth_panel

BOXES = (
    "A found box counts when it overlaps a true one of its class by half (intersection over union); each true box is "
    "found once. The slider sets how sure a network must be; it starts where found and false boxes balance best over "
    "all pictures (the highest F1). Point at a box, or reach a picture with Tab and move with the arrow keys."
)
MASKS = (
    "Colours are the classes that are found, white lines the true outlines; grey has no true class. IoU is the mean "
    "over the classes of one picture, pixels the share that has the right class."
)
MAPS = (
    "Which patches of the first of these images the student relates to the others as the teacher does: 1 is the same "
    "relations, 0 none in common (the mean over channels of a debiased, centred alignment of each patch)."
)


def picture_sections(runs: Sequence[tuple[str, Path]]) -> list[Section]:
    """Return the sections of those runs (name, folder) that kept pictures; none where none did."""
    shots, classes = read_shots(runs)
    sections = []
    if shots:
        sections.append(Section("What they find", _found(shots, classes)))
    for shot in shots:
        if shot.maps:
            panels = [map_panel(f"{who} · {name}", values, shot) for (who, name), values in shot.maps.items()]
            maps = Pictures([Photo.of(shot, panels)], of="map")
            sections.append(Section("Where student and teacher agree", [Note(MAPS), maps]))
    return sections


def _found(shots: Sequence[Shot], classes: Sequence[str]) -> list[Block]:
    photos, matched = [], []
    for shot in shots:
        panels = [truth_panel(shot.truth, classes)]
        for side in shot.seen:
            panel, met = found_panel(side, shot.truth, classes)
            panels.append(panel)
            matched += [] if met is None else [met]
        photos.append(Photo.of(shot, panels))
    if matched:
        return [Note(BOXES), Pictures(photos, of="boxes", least=balanced(matched))]
    return [Note(MASKS), Pictures(photos, of="masks", legend=_legend(shots, classes))]


def _legend(shots: Sequence[Shot], classes: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, colour) of the classes that any mask shows."""
    sides = [side for shot in shots for side in (shot.truth, *shot.seen)]
    there = sorted({int(index) for side in sides if side.mask is not None for index in set(side.mask.flat)} - {255})
    return [(named(classes, i), colour(i)) for i in there if not is_clear(named(classes, i))]

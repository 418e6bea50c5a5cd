"""The pictures that runs save, read: test images with the truth, the predictions and maps.

See `engine.previews` for the format.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.drawing.masks import Mask
from tutelage.report.folder import errors_of, read_bytes, read_json
from tutelage.report.maps import Numbers
from tutelage.report.masks import read_mask
from tutelage.report.matching import Boxes
from tutelage.report.read_maps import finite_numbers

FOLDER = "pictures"
FILE = "pictures.json"


@dataclass(frozen=True)
class Annotation:
    """What is drawn over one copy of an image: the truth, or a network's prediction."""

    title: str
    boxes: Boxes | None
    mask: Mask | None
    points: Points | None = None


@dataclass(frozen=True)
class Points:
    """Joints over an image: their places in pixels, and how sure they are; 0 is no joint."""

    places: Sequence[tuple[float, float]]
    scores: Sequence[float]


@dataclass(frozen=True)
class Preview:
    """A test image.

    Attributes:
        index: its id.
        source: the image as a data URI.
        width: in pixels.
        height: in pixels.
        truth: the targets.
        predictions: of the teacher and each student.
        maps: values over the image by (student, name).
    """

    index: int
    source: str
    width: int
    height: int
    truth: Annotation
    predictions: Sequence[Annotation]
    maps: Mapping[tuple[str, str], Numbers]


@dataclass(frozen=True)
class _RunPreviews:
    """The pictures of one run: what to call its student, and the record of each image by id."""

    student: str
    folder: Path
    classes: Sequence[str]
    images: Mapping[int, Mapping[str, Any]]

    @property
    def file(self) -> Path:
        return self.folder / FILE

    def path(self, name: Any) -> Path:
        """Return a file of the run's pictures, and never one that lies elsewhere."""
        return self.folder / Path(str(name)).name


def read_previews(runs: Sequence[tuple[str, Path]]) -> tuple[list[Preview], Sequence[str]]:
    """Return the images that all runs with pictures have, and the names of the classes.

    The teacher is that of the first run that has one.

    Args:
        runs: what to call the student, and the run's folder.

    Raises:
        UserError: If a file is missing, broken, or of another version.
    """
    records = []
    for student, run in runs:
        if (run / FOLDER / FILE).is_file():
            records.append(_read(student, run / FOLDER))
    if not records:
        return [], []
    first = records[0]
    shared = [index for index in first.images if all(index in run.images for run in records)]
    return [_preview(records, index) for index in shared], first.classes


def _read(student: str, folder: Path) -> _RunPreviews:
    content = read_json(folder / FILE)
    with errors_of(folder / FILE):
        images = {int(image["index"]): image for image in content["images"]}
        return _RunPreviews(student, folder, [str(name) for name in content["classes"]], images)


def _preview(runs: Sequence[_RunPreviews], index: int) -> Preview:
    first = runs[0]
    with errors_of(first.file):
        truth = _annotation("truth", first, first.images[index]["truth"])
    predictions = _predictions(runs, index)
    maps = {}
    for run in runs:
        with errors_of(run.file):
            for name, values in run.images[index]["maps"].items():
                maps[run.student, str(name)] = _map(values)
    with errors_of(first.file):
        record = first.images[index]
        width = int(record["width"])
        height = int(record["height"])
        if len({_kind(annotation) for annotation in (truth, *predictions)}) > 1:
            raise ValueError(f"what is drawn over image {index} is not of one kind and size")
        data = base64.b64encode(read_bytes(first.path(record["file"]))).decode()
    source = f"data:image/jpeg;base64,{data}"
    return Preview(index, source, width, height, truth, predictions, maps)


def _predictions(runs: Sequence[_RunPreviews], index: int) -> list[Annotation]:
    """Return what the teacher of the first run that has one predicts, and each student."""
    predictions = []
    for run in runs:
        with errors_of(run.file):
            record = run.images[index]["teacher"]
            if record is not None:
                predictions.append(_annotation("teacher", run, record))
                break
    for run in runs:
        with errors_of(run.file):
            record = run.images[index]
            predictions.append(_annotation(run.student, run, record["student"]))
            for name, further in record.get("further", {}).items():
                predictions.append(_annotation(f"{run.student} · {name}", run, further))
    return predictions


def _kind(annotation: Annotation) -> tuple[bool, int | None, tuple[int, ...] | None]:
    """Return what all annotations of one image have in common."""
    mask, points = annotation.mask, annotation.points
    return (
        annotation.boxes is None,
        None if points is None else len(points.places),
        None if mask is None else mask.shape,
    )


def _annotation(title: str, run: _RunPreviews, record: Mapping[str, Any]) -> Annotation:
    boxes = _boxes(record) if "boxes" in record else None
    mask = read_mask(run.path(record["mask"])) if "mask" in record else None
    points = _points(record) if "points" in record else None
    if boxes is None and mask is None and points is None:
        raise ValueError("there are neither boxes nor points nor a mask")
    return Annotation(title, boxes, mask, points)


def _points(record: Mapping[str, Any]) -> Points:
    places = [(float(x), float(y)) for x, y in record["points"]]
    scores = [float(score) for score in record["scores"]]
    if len(places) != len(scores):
        raise ValueError("a point has two coordinates and a score")
    return Points(places, scores)


def _boxes(record: Mapping[str, Any]) -> Boxes:
    corners = [[float(value) for value in box] for box in record["boxes"]]
    labels = [int(label) for label in record["labels"]]
    scores = [float(score) for score in record["scores"] or ()]
    sizes = {len(corners), len(labels)}
    if scores:
        sizes.add(len(scores))
    if len(sizes) > 1 or any(len(box) != 4 for box in corners):
        raise ValueError("a box has four corners, a label and a score")
    return Boxes(corners, labels, scores)


def _map(values: Any) -> Numbers:
    if not values or len({len(row) for row in values}) != 1:
        raise ValueError("a map has rows of different lengths")
    return [finite_numbers(row) for row in values]

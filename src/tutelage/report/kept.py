"""The pictures that runs keep, read: test images with what is true, what the networks found, and maps over them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.report.folder import read_bytes, read_json, understood
from tutelage.report.maps import Numbers
from tutelage.report.masks import Pixels, read_mask
from tutelage.report.matching import Boxes
from tutelage.report.numbers import known

FOLDER = "pictures"


@dataclass(frozen=True)
class Side:
    """What is drawn over one copy of an image: the truth, or what a network found."""

    title: str
    boxes: Boxes | None
    mask: Pixels | None


@dataclass(frozen=True)
class Shot:
    """A test image.

    Attributes:
        index: its id.
        source: the image as a data URI.
        width, height: in pixels.
        truth: what is there.
        seen: what the teacher and each student found.
        maps: values over the image by (student, name).
    """

    index: int
    source: str
    width: int
    height: int
    truth: Side
    seen: Sequence[Side]
    maps: Mapping[tuple[str, str], Numbers]


@dataclass(frozen=True)
class _Kept:
    who: str
    folder: Path
    classes: Sequence[str]
    images: Mapping[int, Mapping[str, Any]]


def read_shots(runs: Sequence[tuple[str, Path]]) -> tuple[list[Shot], Sequence[str]]:
    """Return the images that all runs (name, folder) with pictures have, and the names of the classes.

    The teacher is that of the first run that has one.

    Raises:
        UserError: a file is missing, broken, or of another version.
    """
    kept = [_read(who, folder / FOLDER) for who, folder in runs if (folder / FOLDER / "pictures.json").is_file()]
    if not kept:
        return [], []
    shared = [index for index in kept[0].images if all(index in run.images for run in kept)]
    return [_shot(kept, index) for index in shared], kept[0].classes


def _read(who: str, folder: Path) -> _Kept:
    path = folder / "pictures.json"
    content = read_json(path)
    with understood(path):
        images = {int(image["index"]): image for image in content["images"]}
        return _Kept(who, folder, [str(name) for name in content["classes"]], images)


def _shot(kept: Sequence[_Kept], index: int) -> Shot:
    first, sides, maps = kept[0], list(_sides(kept, index)), {}
    for run in kept:
        with understood(run.folder / "pictures.json"):
            maps.update({(run.who, str(name)): _map(v) for name, v in run.images[index]["maps"].items()})
    with understood(first.folder / "pictures.json"):
        record = first.images[index]
        width, height = int(record["width"]), int(record["height"])
        if len({(side.boxes is None, None if side.mask is None else side.mask.shape) for side in sides}) > 1:
            raise ValueError(f"what is drawn over image {index} is not of one kind and size")
        data = base64.b64encode(read_bytes(_beside(first, record["file"]))).decode()
    return Shot(index, f"data:image/jpeg;base64,{data}", width, height, sides[0], sides[1:], maps)


def _sides(kept: Sequence[_Kept], index: int) -> Iterator[Side]:
    """Give the truth, the teacher, and each student, read of the run that they are of."""
    with understood(kept[0].folder / "pictures.json"):
        yield _side("truth", kept[0], kept[0].images[index]["truth"])
    for run in kept:
        with understood(run.folder / "pictures.json"):
            record = run.images[index]["teacher"]
            if record is not None:
                yield _side("teacher", run, record)
                break
    for run in kept:
        with understood(run.folder / "pictures.json"):
            yield _side(run.who, run, run.images[index]["student"])


def _side(title: str, run: _Kept, record: Mapping[str, Any]) -> Side:
    boxes = mask = None
    if "mask" in record:
        mask = read_mask(_beside(run, record["mask"]))
    if "boxes" in record:
        corners = [[float(value) for value in box] for box in record["boxes"]]
        labels, scores = [int(label) for label in record["labels"]], [float(score) for score in record["scores"] or ()]
        if any(len(box) != 4 for box in corners) or {len(labels), len(scores or labels)} != {len(corners)}:
            raise ValueError("a box has four corners, a label and a score")
        boxes = Boxes(corners, labels, scores)
    if boxes is None and mask is None:
        raise ValueError("there are neither boxes nor a mask")
    return Side(title, boxes, mask)


def _map(values: Any) -> Numbers:
    if not values or len({len(row) for row in values}) != 1:
        raise ValueError("a map has rows of different lengths")
    return [[None if value is None else known(float(value)) for value in row] for row in values]


def _beside(run: _Kept, name: Any) -> Path:
    """Return a file of the run's pictures, and never one that lies elsewhere."""
    return run.folder / Path(str(name)).name

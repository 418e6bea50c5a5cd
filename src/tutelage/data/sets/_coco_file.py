"""COCO's `instances` file: read with a message for every mistake in it, and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data._text import existing, path_inside
from tutelage.data.sets._coco_fields import (
    check_annotation,
    check_in_pixels,
    integer,
    num_alike,
    read_area,
    read_content,
    read_crowd,
    read_labels,
    read_side,
)
from tutelage.errors import UserError
from tutelage.io import write_json

LEFT_OUT = "boxes without area in their image left out"
CUT = "boxes cut at the edge of their image"
TINY = "boxes smaller than a pixel"
NO_AREA = "boxes whose 'area' is null, which get that of the box"
ZERO_AREA = "boxes whose 'area' is 0, which get that of the box"
REPEATED = "annotations that are there twice, of which one is read"
SAME_ID = "annotations whose id another one has, too"
SAME_BOX = "boxes that their image has twice in the same category, of which both are read"
OTHER_CASE = "file names that are written in another case than their files"
ALIKE = "categories whose names differ in case at most"


@dataclass(frozen=True)
class CocoImage:
    """One image and its boxes.

    Attributes:
        path: of the image.
        source: the file that describes it.
        width: in pixels.
        height: in pixels.
        boxes: (n, 4) float32, corners x1, y1, x2, y2 in pixels.
        labels: (n,) int64.
        area: (n,) float32, in pixels: of the object, not of its box.
        crowd: (n,) bool: a region of many objects, which evaluation ignores.
    """

    path: Path
    source: Path
    width: int
    height: int
    boxes: Tensor
    labels: Tensor
    area: Tensor
    crowd: Tensor


@dataclass
class Instances:
    """What an `instances` file holds.

    Attributes:
        path: of the file.
        classes: names by label; label 0 is the background.
        images: in the order of the file.
        ids: category ids by label; 0 is the background.
        skipped: how many boxes were left out or cut, and what else is doubtful -> how often.
    """

    path: Path
    classes: list[str]
    images: list[CocoImage]
    ids: list[int]
    skipped: Counter[str] = field(default_factory=Counter)


def read_instances(path: Path, folder: Path, category_ids: bool = False) -> Instances:
    """Read an `instances` file.

    Args:
        path: of the JSON file.
        folder: of its images.
        category_ids: labels are the categories' ids, instead of 1, 2, … in their order.

    Raises:
        UserError: If something is missing, of the wrong kind, or names a category or an image that
            the file lacks.
    """
    content = read_content(path)
    labels, classes = read_labels(content, path, category_ids)
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for image in content["images"]:
        image_id = integer(image, "id", path, "an image")
        if image_id in by_image:
            raise UserError(f"{path} has the image id {image_id} twice; ids are unique")
        by_image[image_id] = []
    for annotation in content["annotations"]:
        check_annotation(annotation, by_image, labels, path)
    check_in_pixels(content["annotations"], path)
    instances = Instances(path, classes, [], label_ids(labels, len(classes)))
    for annotation in _unrepeated(content["annotations"], instances.skipped):
        by_image[annotation["image_id"]].append(annotation)
    instances.skipped[ALIKE] = num_alike([classes[label] for label in labels.values()])
    for image in content["images"]:
        annotations = by_image[image["id"]]
        instances.images.append(_image(image, annotations, labels, instances, folder))
    return instances


def read_classes(path: Path, category_ids: bool = False) -> list[str]:
    """Return the names by label of an `instances` file; see `read_instances`."""
    return read_labels(read_content(path), path, category_ids)[1]


def label_ids(labels: Mapping[int, int], count: int) -> list[int]:
    """Return the category id by label; a label that no category has is its own.

    >>> label_ids({7: 1, 90: 2}, count=3)
    [0, 7, 90]
    """
    ids = list(range(count))
    for category_id, label in labels.items():
        ids[label] = category_id
    return ids


def write_instances(path: Path, images: Sequence[CocoImage], classes: Sequence[str]) -> None:
    """Write an `instances` file atomically.

    Args:
        path: of the JSON file; its folder is made.
        images: their labels index `classes`.
        classes: names by label; label 0 is the background.
    """
    content: dict[str, list[dict[str, Any]]] = {
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes) if label],
        "images": [],
        "annotations": [],
    }
    for image_id, image in enumerate(images, 1):
        content["images"].append(
            {
                "id": image_id,
                "file_name": image.path.name,
                "width": image.width,
                "height": image.height,
            }
        )
        for number, (x1, y1, x2, y2) in enumerate(image.boxes.tolist()):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(image.labels[number]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(image.area[number]),
                    "iscrowd": int(image.crowd[number]),
                }
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def _unrepeated(
    annotations: Sequence[Mapping[str, Any]], skipped: Counter[str]
) -> Iterator[Mapping[str, Any]]:
    """Give each annotation once, and count in `skipped` whose id or box is not its own."""
    seen: dict[int, list[tuple[Any, ...]]] = {}
    contents: set[tuple[Any, ...]] = set()
    for annotation in annotations:
        content = (annotation["image_id"], annotation["category_id"], *annotation["bbox"])
        same_id = seen.setdefault(annotation["id"], [])
        if content in same_id:
            skipped[REPEATED] += 1
            continue
        skipped[SAME_ID] += bool(same_id)
        same_id.append(content)
        skipped[SAME_BOX] += content in contents  # read, as the official evaluation reads it, too
        contents.add(content)
        yield annotation


def _image(
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    labels: Mapping[int, int],
    instances: Instances,
    folder: Path,
) -> CocoImage:
    """Return an image with its boxes, and count in `instances` what is left out or cut."""
    path = instances.path
    what = f"image {entry['id']}"
    width = read_side(entry, "width", path)
    height = read_side(entry, "height", path)
    if not isinstance(entry.get("file_name"), str):
        raise UserError(f"{path}: {what} has no 'file_name'")
    named = path_inside(folder, entry["file_name"], f"{path}: {what}")
    file = existing(named)
    instances.skipped[OTHER_CASE] += file != named

    # The file has x, y, width and height.
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).view(-1, 4)
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    inside = corners.clone()
    inside[:, 0::2].clamp_(0, width)
    inside[:, 1::2].clamp_(0, height)
    keep = (inside[:, 2:] > inside[:, :2]).all(1) & (boxes[:, 2:] > 0).all(1)
    # A box that reaches over the edge by one pixel was rounded, and is not counted.
    cut = keep & ((inside - corners).abs() > 1).any(1)
    instances.skipped[LEFT_OUT] += int((~keep).sum())
    instances.skipped[CUT] += int(cut.sum())
    instances.skipped[TINY] += int((keep & (boxes[:, 2:] < 1).all(1)).sum())

    area: list[float] = []
    for annotation in annotations:
        own_area = read_area(annotation, path)
        _, _, box_width, box_height = annotation["bbox"]
        box_area = box_width * box_height
        area.append(own_area or box_area)
        instances.skipped[NO_AREA] += "area" in annotation and own_area is None
        instances.skipped[ZERO_AREA] += own_area == 0 and min(box_width, box_height) > 0
    crowd = [read_crowd(annotation, path) for annotation in annotations]
    classes = [labels[a["category_id"]] for a in annotations]
    return CocoImage(
        path=file,
        source=path,
        width=width,
        height=height,
        boxes=inside[keep].float(),
        labels=torch.tensor(classes, dtype=torch.int64)[keep],
        area=torch.tensor(area, dtype=torch.float32)[keep],
        crowd=torch.tensor(crowd, dtype=torch.bool)[keep],
    )

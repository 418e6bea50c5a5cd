"""COCO's `instances` file: read with a message for every mistake in it, and written."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import UserError
from tutelage.io import write_json

LEFT_OUT = "boxes without area in their image left out"
CUT = "boxes cut at the edge of their image"


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
        skipped: how many boxes were left out or cut.
    """

    path: Path
    classes: list[str]
    images: list[CocoImage]
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
    content = _content(path)
    labels, classes = _labels(content, path, category_ids)
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for image in content["images"]:
        image_id = _integer(image, "id", path, "an image")
        if image_id in by_image:
            raise UserError(f"{path} has the image id {image_id} twice; ids are unique")
        by_image[image_id] = []
    for annotation in content["annotations"]:
        _check_annotation(annotation, by_image, labels, path)
        by_image[annotation["image_id"]].append(annotation)
    instances = Instances(path, classes, [])
    for image in content["images"]:
        annotations = by_image[image["id"]]
        instances.images.append(_image(image, annotations, labels, instances, folder))
    return instances


def read_classes(path: Path, category_ids: bool = False) -> list[str]:
    """Return the names by label of an `instances` file; see `read_instances`."""
    return _labels(_content(path), path, category_ids)[1]


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


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"{path} is missing; boxes are read from root/annotations/instances_<part>.json"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); write it again") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise UserError(
                f"{path} has no list {name!r}; COCO's format has images, annotations and categories"
            )
    return dict(content)


def _labels(
    content: Mapping[str, Any], path: Path, category_ids: bool
) -> tuple[dict[int, int], list[str]]:
    """Return the label of each category id, and the names by label."""
    categories: dict[int, str] = {}
    for entry in content["categories"]:
        category_id = _integer(entry, "id", path, "a category")
        categories[category_id] = str(entry.get("name", category_id))
    if not categories:
        raise UserError(f"{path} has no 'categories'; list them as {{'id': 1, 'name': 'tree'}}")
    labels: dict[int, int] = {}
    for number, category_id in enumerate(sorted(categories), 1):
        labels[category_id] = category_id if category_ids else number
    classes = ["background"] + ["N/A"] * max(labels.values())
    for category_id, label in labels.items():
        if label < 1:
            raise UserError(
                f"{path} has a category with the id {category_id}; ids count from 1, since 0 is "
                "background"
            )
        classes[label] = categories[category_id]
    return labels, classes


def _check_annotation(
    entry: Any, images: Mapping[int, Any], labels: Mapping[int, int], path: Path
) -> None:
    number = _integer(entry, "id", path, "an annotation")
    what = f"annotation {number}"
    image_id = _integer(entry, "image_id", path, what)
    if image_id not in images:
        raise UserError(f"{path}: {what} has the 'image_id' {image_id}, which no image has")
    category_id = _integer(entry, "category_id", path, what)
    if category_id not in labels:
        raise UserError(
            f"{path}: {what} has the 'category_id' {category_id}, which is none of the "
            f"{len(labels)} categories ({min(labels)} to {max(labels)})"
        )
    box = entry.get("bbox")
    if not _is_box(box):
        raise UserError(
            f"{path}: {what} has the 'bbox' {box}; write [x, y, width, height] in pixels"
        )


def _is_box(value: Any) -> bool:
    """Return whether this is a list of four finite numbers."""
    if not isinstance(value, list) or len(value) != 4:
        return False
    return all(isinstance(number, int | float) and math.isfinite(number) for number in value)


def _integer(entry: Any, name: str, path: Path, what: str) -> int:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int):
        raise UserError(f"{path}: {what} has no whole number {name!r} (it has {str(entry)[:80]})")
    return value


def _image(
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    labels: Mapping[int, int],
    instances: Instances,
    folder: Path,
) -> CocoImage:
    """Return an image with its boxes, and count in `instances` what is left out or cut."""
    what = f"image {entry['id']}"
    width = _integer(entry, "width", instances.path, what)
    height = _integer(entry, "height", instances.path, what)
    if not isinstance(entry.get("file_name"), str):
        raise UserError(f"{instances.path}: {what} has no 'file_name'")

    # The file has x, y, width and height.
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).view(-1, 4)
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    inside = corners.clone()
    inside[:, 0::2].clamp_(0, width)
    inside[:, 1::2].clamp_(0, height)
    keep = (inside[:, 2:] > inside[:, :2]).all(1) & (boxes[:, 2:] > 0).all(1)
    # A box that reaches over the edge by one pixel was rounded, and is not counted.
    cut = keep & ((inside - corners).abs() > 1).any(1)
    for name, count in ((LEFT_OUT, int((~keep).sum())), (CUT, int(cut.sum()))):
        if count:
            instances.skipped[name] += count

    area = [float(a.get("area", a["bbox"][2] * a["bbox"][3])) for a in annotations]
    crowd = [bool(a.get("iscrowd", 0)) for a in annotations]
    classes = [labels[a["category_id"]] for a in annotations]
    return CocoImage(
        path=folder / entry["file_name"],
        source=instances.path,
        width=width,
        height=height,
        boxes=inside[keep].float(),
        labels=torch.tensor(classes, dtype=torch.int64)[keep],
        area=torch.tensor(area)[keep],
        crowd=torch.tensor(crowd, dtype=torch.bool)[keep],
    )

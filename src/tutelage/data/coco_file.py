"""COCO's `instances` file: read with a sentence for what is wrong in it, and written."""

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

LEFT_OUT = "boxes without area in their image left out"
CUT = "boxes cut at the edge of their image"


@dataclass(frozen=True)
class CocoImage:
    """One image and its boxes.

    Attributes:
        path: of the image; `source` is the file that tells of it.
        width, height: in pixels.
        boxes: (n, 4) float32, corners x1, y1, x2, y2 in pixels.
        labels: (n,) int64.
        area: (n,) float32, in pixels: of the object, not of its box.
        crowd: (n,) bool: a region of many objects, which evaluation passes over.
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
        folder: where its images lie.
        category_ids: labels are the categories' ids, instead of 1, 2, … in their order.

    Raises:
        UserError: something is missing, of the wrong kind, or names a category or an image that the file lacks.
    """
    content = _content(path)
    labels, classes = _labels(content, path, category_ids)
    boxes: dict[int, list[Mapping[str, Any]]] = {}
    for image in content["images"]:
        number = _whole(image, "id", path, "an image")
        if number in boxes:
            raise UserError(f"{path} has the image id {number} twice; ids are unique")
        boxes[number] = []
    for annotation in content["annotations"]:
        _check_annotation(annotation, boxes, labels, path)
        boxes[annotation["image_id"]].append(annotation)
    found = Instances(path, classes, [])
    for image in content["images"]:
        found.images.append(_image(image, boxes[image["id"]], labels, found, folder))
    return found


def read_classes(path: Path, category_ids: bool = False) -> list[str]:
    """Return the names by label of an `instances` file, without a look at its images; see `read_instances`."""
    return _labels(_content(path), path, category_ids)[1]


def _labels(content: Mapping[str, Any], path: Path, category_ids: bool) -> tuple[dict[int, int], list[str]]:
    """Return the label of each category id, and the names by label."""
    categories = {_whole(c, "id", path, "a category"): str(c.get("name", c["id"])) for c in content["categories"]}
    if not categories:
        raise UserError(f"{path} has no 'categories'; list them as {{'id': 1, 'name': 'tree'}}")
    order = sorted(categories)
    labels = {number: number if category_ids else place + 1 for place, number in enumerate(order)}
    classes = ["background"] + ["N/A"] * max(labels.values())
    for number, label in labels.items():
        if label < 1:
            raise UserError(f"{path} has a category with the id {number}; ids count from 1, since 0 is background")
        classes[label] = categories[number]
    return labels, classes


def write_instances(path: Path, images: Sequence[CocoImage], classes: Sequence[str]) -> None:
    """Write an `instances` file of images whose labels index `classes` (0 is the background); whole or not at all."""
    content: dict[str, list[dict[str, Any]]] = {
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes) if label],
        "images": [],
        "annotations": [],
    }
    for number, image in enumerate(images, 1):
        size = {"width": image.width, "height": image.height}
        content["images"].append({"id": number, "file_name": image.path.name, **size})
        corners, labels = image.boxes.tolist(), image.labels.tolist()
        for (x1, y1, x2, y2), label, area, crowd in zip(
            corners, labels, image.area.tolist(), image.crowd.tolist(), strict=True
        ):
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing; boxes are read from root/annotations/instances_<part>.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); write it again") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise UserError(f"{path} has no list {name!r}; COCO's format has images, annotations and categories")
    return dict(content)


def _whole(entry: Any, name: str, path: Path, what: str) -> int:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int):
        raise UserError(f"{path}: {what} has no whole number {name!r} (it has {str(entry)[:80]})")
    return value


def _check_annotation(entry: Any, images: Mapping[int, Any], labels: Mapping[int, int], path: Path) -> None:
    number = _whole(entry, "id", path, "an annotation")
    if _whole(entry, "image_id", path, f"annotation {number}") not in images:
        raise UserError(f"{path}: annotation {number} has the 'image_id' {entry['image_id']}, which no image has")
    category = _whole(entry, "category_id", path, f"annotation {number}")
    if category not in labels:
        raise UserError(
            f"{path}: annotation {number} has the 'category_id' {category}, which is none of the "
            f"{len(labels)} categories ({min(labels)} to {max(labels)})"
        )
    box = entry.get("bbox")
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(math.isfinite(value) for value in entry["bbox"]):
        raise UserError(f"{path}: annotation {number} has the 'bbox' {box}; write [x, y, width, height] in pixels")


def _image(
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    labels: Mapping[int, int],
    found: Instances,
    folder: Path,
) -> CocoImage:
    what = f"image {entry['id']}"
    width, height = (_whole(entry, name, found.path, what) for name in ("width", "height"))
    if not isinstance(entry.get("file_name"), str):
        raise UserError(f"{found.path}: {what} has no 'file_name'")
    given = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).view(-1, 4)
    corners = torch.cat([given[:, :2], given[:, :2] + given[:, 2:]], 1)
    cut = corners.clone()
    cut[:, 0::2].clamp_(0, width)
    cut[:, 1::2].clamp_(0, height)
    kept = (cut[:, 2:] > cut[:, :2]).all(1) & (given[:, 2:] > 0).all(1)
    over = kept & ((cut - corners).abs().amax(1) > 1 if len(cut) else kept)  # a pixel more is a matter of rounding
    found.skipped.update({name: int(n) for name, n in ((LEFT_OUT, (~kept).sum()), (CUT, over.sum())) if n})
    area = torch.tensor([float(a.get("area", a["bbox"][2] * a["bbox"][3])) for a in annotations])
    crowd = torch.tensor([bool(a.get("iscrowd", 0)) for a in annotations], dtype=torch.bool)
    classes = torch.tensor([labels[a["category_id"]] for a in annotations], dtype=torch.int64)
    return CocoImage(
        folder / entry["file_name"],
        found.path,
        width,
        height,
        cut[kept].float(),
        classes[kept],
        area[kept],
        crowd[kept],
    )

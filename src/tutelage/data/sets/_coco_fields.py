"""The fields of COCO's `instances` file, each with a message for what may be wrong in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.data._text import MEGABYTE, is_file, read_bytes
from tutelage.errors import UserError

FLAGS = {
    "0": False,
    "1": True,
    "0.0": False,
    "1.0": True,
    "false": False,
    "true": True,
    "none": False,
    "": False,
}
MAX_CATEGORY_ID = 10_000  # where ids are labels, there is a class for each number up to the largest
MAX_SIDE = 10**6  # in pixels
MAX_FILE = 4096 * MEGABYTE  # COCO's largest file of boxes has 470
FIX = "write it again, in UTF-8, with 'images', 'annotations' and 'categories' alone"


def read_content(path: Path) -> dict[str, Any]:
    """Return the object in an `instances` file, which has the three lists.

    Raises:
        UserError: If it is missing, not JSON, or of another shape.
    """
    if not is_file(path):
        raise UserError(
            f"{path} is missing; boxes are read from root/annotations/instances_<part>.json"
        )
    text = read_bytes(path, MAX_FILE, FIX)
    try:
        # From bytes, `loads` finds out the encoding and passes over a byte order mark.
        content = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is not whole JSON ({error}); {FIX}") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise UserError(
                f"{path} has no list {name!r}; COCO's format has images, annotations and categories"
            )
    return dict(content)


def read_labels(
    content: Mapping[str, Any], path: Path, category_ids: bool
) -> tuple[dict[int, int], list[str]]:
    """Return the label of each category id, and the names by label.

    Raises:
        UserError: If an id is repeated or out of range, or a name is empty.
    """
    categories: dict[int, str] = {}
    for entry in content["categories"]:
        category_id = integer(entry, "id", path, "a category")
        name = entry.get("name", category_id)
        if category_id in categories:
            raise UserError(
                f"{path} has the category id {category_id} twice, as {categories[category_id]!r} "
                f"and as {name!r}; ids are unique"
            )
        if name is None or not str(name).strip():
            raise UserError(f"{path}: the category {category_id} has an empty 'name'; name it")
        categories[category_id] = str(name)
    if not categories:
        raise UserError(f"{path} has no 'categories'; list them as {{'id': 1, 'name': 'tree'}}")
    if category_ids and not 1 <= min(categories) <= max(categories) <= MAX_CATEGORY_ID:
        wrong = min(categories) if min(categories) < 1 else max(categories)
        raise UserError(
            f"{path} has a category with the id {wrong}; ids count from 1, since 0 is background, "
            f"to at most {MAX_CATEGORY_ID}, or leave out data.category_ids"
        )
    labels: dict[int, int] = {}
    for number, category_id in enumerate(sorted(categories), 1):
        labels[category_id] = category_id if category_ids else number
    classes = ["background"] + ["N/A"] * max(labels.values())
    for category_id, label in labels.items():
        classes[label] = categories[category_id]
    return labels, classes


def num_alike(names: Sequence[str]) -> int:
    """Return how many names equal another one but for case and space around them."""
    counts = Counter(name.strip().casefold() for name in names)
    return sum(count for count in counts.values() if count > 1)


def check_annotation(
    entry: Any, images: Mapping[int, Any], labels: Mapping[int, int], path: Path
) -> None:
    """Check which image and category an annotation has, and its box.

    Raises:
        UserError: If one is missing or does not exist.
    """
    number = integer(entry, "id", path, "an annotation")
    what = f"annotation {number}"
    image_id = integer(entry, "image_id", path, what)
    if image_id not in images:
        raise UserError(f"{path}: {what} has the 'image_id' {image_id}, which no image has")
    category_id = integer(entry, "category_id", path, what)
    if category_id not in labels:
        raise UserError(
            f"{path}: {what} has the 'category_id' {category_id}, which is none of the "
            f"{len(labels)} categories ({min(labels)} to {max(labels)})"
        )
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
        raise UserError(
            f"{path}: {what} has the 'bbox' {str(box)[:80]}; write [x, y, width, height] in pixels"
        )


def check_in_pixels(annotations: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Check that boxes are no shares of the image.

    Raises:
        UserError: If no number of any box is above 1, and some are no whole numbers.
    """
    boxes = [entry["bbox"] for entry in annotations]
    if not boxes or any(max(box) > 1 for box in boxes):
        return
    if any(0 < value < 1 for box in boxes for value in box):
        raise UserError(
            f"{path} has boxes between 0 and 1, such as {boxes[0]}, which are shares of the image; "
            "multiply them by its width and height, since boxes are in pixels"
        )


def read_area(entry: Mapping[str, Any], path: Path) -> float | None:
    """Return the area of an object; None if the file has none.

    Raises:
        UserError: If it is no number, or negative.
    """
    value = entry.get("area")
    if value is None:
        return None
    try:
        area = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        area = math.nan
    if not 0 <= area < math.inf:
        raise UserError(
            f"{path}: annotation {entry['id']} has the 'area' {str(value)[:40]!r}; write a number "
            "of pixels, or leave it out for the area of the box"
        )
    return area


def read_crowd(entry: Mapping[str, Any], path: Path) -> bool:
    """Return whether this is a region of many objects.

    Raises:
        UserError: If the field is neither 0 nor 1.
    """
    value = entry.get("iscrowd", 0)
    flag = FLAGS.get(str(value).strip().lower())
    if flag is None:
        raise UserError(
            f"{path}: annotation {entry['id']} has the 'iscrowd' {str(value)[:40]!r}; write 0 or 1"
        )
    return flag


def read_side(entry: Mapping[str, Any], name: str, path: Path) -> int:
    """Return the width or the height of an image.

    Raises:
        UserError: If it is no positive whole number.
    """
    value = integer(entry, name, path, f"image {entry['id']}")
    if not 1 <= value <= MAX_SIDE:
        raise UserError(
            f"{path}: image {entry['id']} has the {name!r} {str(value)[:40]}; write its size in "
            "pixels"
        )
    return value


def integer(entry: Any, name: str, path: Path, what: str) -> int:
    """Return a whole number of an entry.

    Raises:
        UserError: If the entry has none of that name.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer():  # some writers have floats only
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{path}: {what} has no whole number {name!r} (it has {str(entry)[:80]})")
    return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False

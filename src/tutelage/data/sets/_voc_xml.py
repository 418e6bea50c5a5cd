"""The XML files of PASCAL VOC: one for each image, with its boxes."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tutelage.data._files import LYING, image_size, stored_orientation
from tutelage.data._text import is_file, path_inside, read_xml, warn_counts
from tutelage.data.sets._coco_file import CUT, LEFT_OUT, CocoImage
from tutelage.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {"0": False, "1": True, "": False, "false": False, "true": True, "unspecified": False}
SWAPPED = "boxes with swapped corners, which are put in order"
FROM_ZERO = "boxes that begin at pixel 0, although VOC counts from 1, cut at the edge"
REPEATED = "objects that are there twice with the same box, read once"
SECOND = "second boxes of an object, left out"
SIZE = "sizes of images that are missing, 0 or swapped, taken from the image file"
BACKGROUND = "background"  # label 0, of which there are no boxes
MAX_SIDE = 10**6  # in pixels


def read_voc(
    path: Path,
    classes: Sequence[str] | None = None,
    image: Path | None = None,
    first_pixel: int = 1,
    *,
    counts: Counter[str] | None = None,
) -> tuple[CocoImage, list[str]]:
    """Read the boxes of one image.

    Swapped corners are put in order, boxes that reach over the edge are cut, those without area in
    the image are left out, as are second boxes of an object and objects that are there twice, and a
    size that is missing, 0 or has width and height swapped is that of the image file.

    Args:
        path: of the XML file.
        classes: names by label; label 0 is the background. None leaves the labels at 0.
        image: the image file; None takes the XML file's own `filename`, in the same folder.
        first_pixel: number of the first pixel: 1 in VOC, whose boxes also name their last pixel; 0
            for boxes that end there.
        counts: what was corrected or left out -> how often, counted on; None warns of it.

    Returns:
        The image with its boxes, and the names of all objects.

    Raises:
        UserError: If the file is no VOC annotation, or an object has no box, or a name that is none
            of the classes.
    """
    root = read_xml(path, "write it again")
    if root.find("size") is None and root.find("object") is None:
        raise UserError(
            f"{path} is no VOC annotation, as it has neither 'size' nor 'object' in its "
            f"{root.tag[:40]!r}; export it in the format of PASCAL VOC, without namespaces"
        )
    found: Counter[str] = Counter()
    names: list[str] = []
    boxes: list[list[float]] = []
    crowd: list[bool] = []
    for number, entry in enumerate(root.findall("object"), 1):
        what = f"object {number}"
        name = _name(entry, classes, path, what)
        box = [_number(entry, f"bndbox/{key}", path, what) for key in CORNERS]
        found[SECOND] += len(entry.findall("bndbox")) - 1
        is_difficult = _is_difficult(entry, path, what)
        if (name, box) in zip(names, boxes, strict=True):
            found[REPEATED] += 1
            continue
        names.append(name)
        boxes.append(box)
        crowd.append(is_difficult)
    corners = torch.tensor(boxes, dtype=torch.float64).view(-1, 4)
    if corners.numel() and corners.max() <= 1 and ((corners > 0) & (corners < 1)).any():
        raise UserError(
            f"{path} has boxes between 0 and 1, such as {boxes[0]}, which are shares of the image; "
            "multiply them by its width and height, since boxes are in pixels"
        )
    if image is None:
        file_name = root.findtext("filename") or f"{path.stem}.jpg"
        image = path_inside(path.parent, file_name, str(path))
    width, height = _size(root, corners, image, path, found)
    inside, keep = _ordered(corners, (width, height), first_pixel, found)
    if counts is None:
        warn_counts(path, found)
    else:
        counts.update(found)
    labels = [0 if classes is None else classes.index(name) for name in names]
    described = CocoImage(
        path=image,
        source=path,
        width=width,
        height=height,
        boxes=inside[keep].float(),
        labels=torch.tensor(labels, dtype=torch.int64)[keep],
        area=(inside[:, 2:] - inside[:, :2]).prod(1)[keep].float(),
        crowd=torch.tensor(crowd, dtype=torch.bool)[keep],
    )
    return described, names


def check_class_names(files: Mapping[str, Path]) -> None:
    """Check that every name of a class can be one.

    Args:
        files: name -> an XML file that has it.

    Raises:
        UserError: If two differ only in case (single letters may, as in the alphabet), or one is
            that of what is outside of all boxes.
    """
    if BACKGROUND in files:
        raise UserError(
            f"{files[BACKGROUND]} has an object of the name {BACKGROUND!r}, which is what lies "
            "outside of all boxes; give it another name"
        )
    by_spelling: dict[str, str] = {}
    for name in sorted(files):
        other = by_spelling.setdefault(name.casefold(), name)
        if other != name and len(name) > 1:
            raise UserError(
                f"the names {other!r} (in {files[other]}) and {name!r} (in {files[name]}) differ "
                "only in case and would be two classes; write one of them everywhere"
            )


def _ordered(
    corners: Tensor, size: tuple[int, int], first_pixel: int, found: Counter[str]
) -> tuple[Tensor, Tensor]:
    """Return boxes that count from 0 and lie in the image, and which of them have an area."""
    low = torch.minimum(corners[:, :2], corners[:, 2:])
    high = torch.maximum(corners[:, :2], corners[:, 2:])
    found[SWAPPED] += int((corners[:, :2] > corners[:, 2:]).any(1).sum())
    found[FROM_ZERO] += int((low < first_pixel).any(1).sum())
    moved = torch.cat([low - first_pixel, high], 1)
    inside = moved.clone()
    inside[:, 0::2].clamp_(0, size[0])
    inside[:, 1::2].clamp_(0, size[1])
    keep = (inside[:, 2:] > inside[:, :2]).all(1)
    found[LEFT_OUT] += int((~keep).sum())
    # A box that reaches over the edge by one pixel was rounded, and is not counted.
    found[CUT] += int((keep & ((inside - moved).abs() > 1).any(1)).sum())
    return inside, keep


def _size(
    root: ElementTree.Element, corners: Tensor, image: Path, path: Path, found: Counter[str]
) -> tuple[int, int]:
    """Return the width and the height in which the boxes are."""
    width, height = _written_size(root, path)
    if not is_file(image):
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            raise UserError(f"{path} has the size {width}×{height}; write that of its image")
        return width, height
    stored = image_size(image)
    is_upright = (height, width) == stored and stored_orientation(image) in LYING
    if (width, height) == stored or is_upright:
        return width, height
    fits = corners.numel() == 0 or (
        max(corners[:, 0].max(), corners[:, 2].max()) <= stored[0]
        and max(corners[:, 1].max(), corners[:, 3].max()) <= stored[1]
    )
    if fits and (0 in (width, height) or (height, width) == stored):
        found[SIZE] += 1
        return stored
    raise UserError(
        f"{path} has the size {width}×{height}, but its image {image} is {stored[0]}×{stored[1]}; "
        "correct it, since its boxes are in those pixels"
    )


def _written_size(root: ElementTree.Element, path: Path) -> tuple[int, int]:
    """Return the width and the height that the file says; 0 for one that is missing."""
    numbers = []
    for name in ("size/width", "size/height"):
        is_missing = not (root.findtext(name) or "").strip()
        numbers.append(0.0 if is_missing else _number(root, name, path))
    return int(numbers[0]), int(numbers[1])


def _name(entry: ElementTree.Element, classes: Sequence[str] | None, path: Path, what: str) -> str:
    name = (entry.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{path}: {what} has no name; write that of its class")
    if classes is not None and name not in classes[1:]:
        raise UserError(
            f"{path}: {what} has the name {name!r}, which is none of {list(classes[1:])}"
        )
    return name


def _is_difficult(entry: ElementTree.Element, path: Path, what: str) -> bool:
    text = (entry.findtext("difficult") or "").strip()
    flag = FLAGS.get(text.lower())
    if flag is None:
        raise UserError(f"{path}: {what} has the 'difficult' {text[:40]!r}; write 0 or 1")
    return flag


def _number(
    entry: ElementTree.Element, name: str, path: Path, what: str = "the annotation"
) -> float:
    text = entry.findtext(name)
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{path}: {what} has no number {name!r} (it has {text!r}); write it, or take the "
            "entry out"
        )
    return number

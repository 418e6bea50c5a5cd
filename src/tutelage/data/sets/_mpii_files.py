"""MPII's annotation files: JSON lists of persons, head boxes, the release as a MATLAB file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.data._text import MEGABYTE, is_file, path_inside, read_bytes
from tutelage.errors import UserError

NUM_JOINTS = 16
HEAD = 0.6  # of the diagonal of a head box is the size of a head
FIX = "get MPII's annotations again"


@dataclass(frozen=True)
class Person:
    """One person.

    Attributes:
        image: name of the file.
        points: (16, 2) float32 in pixels, counted from 0.
        visible: (16,) bool, whether a joint has a label.
        center: (2,) float32 in pixels.
        scale: height over 200 pixels.
        head: size of the head in pixels; None if there is no box.
    """

    image: str
    points: Tensor
    visible: Tensor
    center: Tensor
    scale: float
    head: float | None = None


def read_json_part(path: Path) -> list[Person]:
    """Return the persons of `train.json` or `valid.json`.

    Raises:
        UserError: If the file is missing or broken, or a person lacks something.
    """
    text = read_bytes(path, 1024 * MEGABYTE, FIX)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole JSON ({error}); {FIX}") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} is no list of persons; {FIX}")
    return [
        _person(entry, f"{path}: person {number}", path) for number, entry in enumerate(entries)
    ]


def head_sizes(path: Path, count: int) -> Tensor:
    """Return the sizes of the heads (N,) in `gt_valid.mat`.

    Raises:
        UserError: If the file is missing or broken, or has another number of persons.
    """
    content = _load(path)
    boxes: Any = content.get("headboxes_src")
    if count == 1 and getattr(boxes, "shape", None) == (2, 2):
        boxes = boxes[..., None]  # scipy drops an axis of one entry
    shape = getattr(boxes, "shape", None)
    if shape != (2, 2, count):
        raise UserError(
            f"{path} has head boxes of the shape {shape}, but valid.json has {count} persons; give "
            "the two files of one split"
        )
    corners = torch.from_numpy(boxes.astype("float64"))
    sizes: Tensor = HEAD * (corners[1] - corners[0]).norm(dim=0)
    if not bool((sizes > 0).all()):
        raise UserError(f"{path} has a head box without extent; {FIX}")
    return sizes.float()


def read_release(path: Path) -> list[Person]:
    """Return the persons with joints in the training images of MPII's own file.

    Raises:
        UserError: If the file is broken.
    """
    content = _load(path)
    try:
        release = content["RELEASE"]
        flags = _listed(release.img_train)
        people = []
        for annotation, is_training in zip(_listed(release.annolist), flags, strict=True):
            if not is_training:
                continue  # joints of test images are not published
            people += list(_people(annotation, path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as MPII was released ({error}); {FIX}") from error
    if not people:
        raise UserError(f"{path} has no person with joints in a training image; {FIX}")
    return people


def _people(annotation: Any, path: Path) -> Iterator[Person]:
    name = str(annotation.image.name)
    path_inside(path.parent, name, str(path))
    for person in _listed(getattr(annotation, "annorect", [])):
        entries = _listed(getattr(getattr(person, "annopoints", None), "point", []))
        scale = getattr(person, "scale", None)
        if not entries or not isinstance(scale, (int, float)):
            continue
        points = torch.zeros(NUM_JOINTS, 2)
        visible = torch.zeros(NUM_JOINTS, dtype=torch.bool)
        for entry in entries:
            if not 0 <= int(entry.id) < NUM_JOINTS:
                raise ValueError(f"{name} has the joint {entry.id} of 0 to {NUM_JOINTS - 1}")
            points[int(entry.id)] = torch.tensor([float(entry.x) - 1, float(entry.y) - 1])
            visible[int(entry.id)] = True
        center = torch.tensor([float(person.objpos.x) - 1, float(person.objpos.y) - 1])
        head = HEAD * math.hypot(float(person.x2 - person.x1), float(person.y2 - person.y1))
        yield Person(name, points, visible, center, float(scale), head or None)


def _listed(value: Any) -> list[Any]:
    """Return a MATLAB array as a list, of which one entry stands for itself."""
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0:
        return list(value)
    return list(value) if isinstance(value, list) else [value]


def _person(entry: Any, where: str, path: Path) -> Person:
    try:
        points = torch.tensor(entry["joints"], dtype=torch.float32).view(NUM_JOINTS, 2) - 1
        visible = torch.tensor(entry["joints_vis"]).view(NUM_JOINTS) > 0
        center = torch.tensor(entry["center"], dtype=torch.float32).view(2) - 1
        scale = float(entry["scale"])
        image = entry["image"]
        path_inside(path.parent, image, where)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where} lacks or garbles one of joints, joints_vis, center, scale and image "
            f"({error}); {FIX}"
        ) from None
    finite = points[visible].isfinite().all() and center.isfinite().all()
    if not bool(finite) or not 0 < scale < math.inf:
        raise UserError(f"{where} has coordinates or a scale that no person has; {FIX}")
    return Person(image, points, visible, center, scale)


def _load(path: Path) -> dict[str, Any]:
    """Return the variables of a MATLAB file."""
    if not is_file(path):
        raise UserError(f"{path} is missing; {FIX}")
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(path), struct_as_record=False, squeeze_me=True)
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        raise UserError(f"{path} cannot be read as a MATLAB file ({error}); {FIX}") from error
    return content

"""Pictures by their documented format: three test images with boxes, or one with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tutelage.io import write_json

CLASSES = ["background", "tree", "<b>car</b>"]
TRUTH = {"boxes": [[10, 10, 50, 40], [60, 20, 90, 60]], "labels": [1, 2], "scores": None}
NOTHING: dict[str, Any] = {"boxes": [], "labels": [], "scores": []}
TEACHER = {"boxes": [[10, 10, 50, 40], [60, 20, 90, 58]], "labels": [1, 2], "scores": [0.9, 0.7]}
STUDENT = {
    "boxes": [[12, 10, 50, 40], [60, 20, 90, 60], [5, 50, 30, 70]],
    "labels": [1, 1, 2],
    "scores": [0.8, 0.6, 0.2],
}  # a tree; a car that is taken for a tree; nothing
MAP = [[0.9, 0.5], [None, -0.1], [0.25, 1.0]]


def write_boxes(
    run: Path, student: dict[str, Any], teacher: dict[str, Any] | None, maps: bool = False
) -> None:
    """Write pictures of 100 × 80 pixels with boxes; the last of the three images is empty."""
    images = []
    for index in (0, 5, 9):
        _photo(run / f"pictures/{index}.jpg", index)
        record = {"index": index, "file": f"{index}.jpg", "width": 100, "height": 80}
        sides = {"truth": TRUTH, "student": student, "teacher": teacher}
        if index == 9:
            sides = {
                "truth": {**NOTHING, "scores": None},
                "student": NOTHING,
                "teacher": teacher and NOTHING,
            }
        images.append({**record, **sides, "maps": {"fpn[0]": MAP} if maps and index == 0 else {}})
    write_json(run / "pictures/pictures.json", {"classes": CLASSES, "images": images})


def write_masks(run: Path) -> None:
    """Write a picture whose upper half is a tree, and whose first row has no class.

    The student's tree reaches one row further down.
    """
    _photo(run / "pictures/0.jpg", 0)
    record: dict[str, Any] = {
        "index": 0,
        "file": "0.jpg",
        "width": 100,
        "height": 80,
        "teacher": None,
        "maps": {},
    }
    for who, edge in (("truth", 40), ("student", 41)):
        mask = np.zeros((80, 100), np.uint8)
        mask[:edge] = 1
        if who == "truth":
            mask[0] = 255
        Image.fromarray(mask).save(run / f"pictures/0-{who}.png")
        record[who] = {"mask": f"0-{who}.png"}
    write_json(run / "pictures/pictures.json", {"classes": CLASSES, "images": [record]})


def _photo(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 200, (8, 10, 3), np.uint8)
    Image.fromarray(pixels.repeat(10, 0).repeat(10, 1)).save(path)

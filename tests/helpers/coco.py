"""Tiny data sets in COCO's and VOC's formats, on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ANNOTATIONS: list[dict[str, Any]] = [
    {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [10, 20, 30, 24],
        "area": 500.0,
        "iscrowd": 0,
    },
    {
        "id": 2,
        "image_id": 7,
        "category_id": 90,
        "bbox": [0, 0, 60, 40],
        "area": 2400.0,
        "iscrowd": 0,
    },
    {"id": 3, "image_id": 9, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400.0, "iscrowd": 0},
    {
        "id": 4,
        "image_id": 9,
        "category_id": 1,
        "bbox": [30, 10, 30, 30],
        "area": 900.0,
        "iscrowd": 1,
    },
]
CONTENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 96, "height": 72},
        {"id": 9, "file_name": "b.jpg", "width": 64, "height": 80},
    ],
    "annotations": ANNOTATIONS,
    "categories": [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}],
}


def write_coco(
    root: Path, content: dict[str, Any] = CONTENT, parts: tuple[str, ...] = ("train2017", "val2017")
) -> Path:
    """Write two images with boxes in COCO's own layout; return the root."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for part in parts:
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
        (root / part).mkdir(exist_ok=True)
        noise = np.random.default_rng(len(part))
        for name, size in (("a.jpg", (72, 96)), ("b.jpg", (80, 64))):
            Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(
                root / part / name
            )
    return root


def write_voc(root: Path) -> Path:
    """Write two annotated photographs in VOC's layout; return the root."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for part in ("train", "val"):
        (root / "ImageSets/Main" / f"{part}.txt").write_text(f"{part}_1\n")
        shade = 10 * len(part)
        Image.fromarray(np.full((40, 50, 3), shade, dtype=np.uint8)).save(
            root / "JPEGImages" / f"{part}_1.jpg"
        )
        objects = "".join(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
            f"<xmin>{x}</xmin><ymin>3</ymin><xmax>{x + 9}</xmax><ymax>12</ymax></bndbox></object>"
            for name, x, difficult in (("dog", 1, 0), ("cat", 21, 1))
        )
        size = "<size><width>50</width><height>40</height><depth>3</depth></size>"
        text = f"<annotation><filename>{part}_1.jpg</filename>{size}{objects}</annotation>"
        (root / "Annotations" / f"{part}_1.xml").write_text(text)
    return root

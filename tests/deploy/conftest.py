"""Small finished runs of every task on images, each trained once, whose data then moves away."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.helpers.coco import CONTENT, write_coco
from tests.helpers.commands import network, part, write_image_folder, write_recipe
from tests.helpers.masks import write_voc_masks
from tutelage.cli import main

OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
TRAIN: dict[str, Any] = {"batch_size": 4, "num_threads": 1, "optimizer": OPTIMIZER}


def train(folder: Path, **sections: Any) -> Path:
    """Train a recipe in a folder, from which its relative paths start, and return the run."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", write_recipe("mine.yaml", **sections), "--out", "run"]) == 0
    finally:
        os.chdir(before)
    return folder / "run"


def detector(kind: str, **arguments: Any) -> dict[str, Any]:
    backbone = part("models.fpn_backbone", name="mobilenetv3_small_050", width=32, extra=None)
    return network(
        f"models.{kind}",
        backbone=backbone,
        num_classes=3,
        sides=[96],
        strides=[8, 16, 32],
        **arguments,
    )


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that tells bright images from dark ones, with a teacher and a temperature."""
    folder = tmp_path_factory.mktemp("classifier")
    write_image_folder(folder / "photos", count=36)
    task = part("tasks.Classification", num_classes=3)
    sections: dict[str, Any] = {
        "data": part("data.ImageFolder", root="photos", size=8),
        "task": task,
        "num_labels": None,
    }
    teacher = {**sections, "student": network(num_classes=3, channels=3, width=16)}
    own = {"method": part("methods.Baseline"), "train": {**TRAIN, "epochs": 1}}
    (folder / "teacher.yaml").write_text(yaml.safe_dump({**teacher, **own}))
    return train(
        folder,
        **sections,
        student=network(num_classes=3, channels=3, width=4),
        method=part("methods.KD"),
        teacher={"recipe": "teacher.yaml", "preflight": False},
        train={**TRAIN, "batch_size": 20, "epochs": 3, "calibrate": "temperature"},
    )


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that finds bricks."""
    folder = tmp_path_factory.mktemp("segmenter")
    write_voc_masks(folder / "voc", {"train": 8, "val": 4})
    return train(
        folder,
        data=part(
            "data.VOCSegmentation",
            root="voc",
            names=["background", "red", "green"],
            validation=0.25,
            augment=False,
        ),
        task=part("tasks.Segmentation", num_classes=3),
        student=network("models.unet", num_classes=3, width=4, convs=1),
        num_labels=None,
        train={**TRAIN, "epochs": 8, "eval_batch_size": 1},
    )


def write_squares(root: Path) -> Path:
    """Write a red and a green square on noise in COCO's layout, with the category ids 1 and 90."""
    squares = {"a.jpg": (1, 10, 20, (220, 40, 40)), "b.jpg": (90, 30, 40, (40, 220, 40))}
    content = copy.deepcopy(CONTENT)
    content["annotations"] = []
    for number, (category, x, y, _) in enumerate(squares.values(), start=1):
        annotation = {"id": number, "image_id": (7, 9)[number - 1], "category_id": category}
        content["annotations"].append({**annotation, "bbox": [x, y, 28, 26], "iscrowd": 0})
    write_coco(root, content)
    generator = np.random.default_rng(0)
    for part_name in ("train2017", "val2017"):
        for name, size in (("a.jpg", (72, 96)), ("b.jpg", (80, 64))):
            pixels = generator.integers(0, 60, (*size, 3), dtype=np.uint8)
            _, x, y, color = squares[name]
            pixels[y : y + 26, x : x + 28] = color
            Image.fromarray(pixels).save(root / part_name / name, quality=95)
    return root


def train_detector(folder: Path, kind: str, **arguments: Any) -> Path:
    write_squares(folder / "coco")
    return train(
        folder,
        data=part("data.Coco", root="coco", val="val2017", augment=False),
        task=part("tasks.Detection", num_classes=3),
        student=detector(kind, **arguments),
        num_labels=None,
        train={**TRAIN, "batch_size": 2, "eval_batch_size": 1, "epochs": 30, "eval_every": 30},
    )


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of FCOS, overfitted to two images."""
    return train_detector(tmp_path_factory.mktemp("boxes"), "fcos", convs=1)

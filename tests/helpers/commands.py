"""Tiny recipes and data sets on disk, and what a command answered."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from tutelage.data.sets.mnist import read_idx

OPTIMIZER = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
TRAIN = {"epochs": 1, "batch_size": 50, "num_threads": 1, "optimizer": OPTIMIZER}


def part(path: str, **arguments: Any) -> dict[str, Any]:
    """Return a class path with arguments; `tutelage.` is put before it where it is ours."""
    ours = path.split(".")[0] in ("data", "tasks", "models", "methods")
    return {"class_path": f"tutelage.{path}" if ours else path, "init_args": arguments}


def network(path: str = "models.small_cnn", **arguments: Any) -> dict[str, Any]:
    return {"model": part(path, **arguments)}


BASE: dict[str, Any] = {
    "data": part("data.Digits"),
    "num_labels": 100,
    "task": part("tasks.Classification", num_classes=10),
    "student": network(width=4),
    "method": part("methods.Baseline"),
    "train": TRAIN,
}
TEACHER: dict[str, Any] = {
    "num_labels": None,
    "student": network(width=8),
    "train": {**TRAIN, "epochs": 4},
}


def write_recipe(path: str | Path, **sections: Any) -> str:
    """Write a recipe: the base with these sections instead; None leaves a section out."""
    recipe = {**copy.deepcopy(BASE), **sections}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(
        {key: value for key, value in recipe.items() if value is not None}, sort_keys=False
    )
    Path(path).write_text(text)
    return str(path)


def images(count: int, label: int, size: int, seed: int) -> np.ndarray:
    """Return noisy images whose brightness tells the label, (N, size, size, 3) uint8."""
    noise = np.random.default_rng(seed * 1000 + label).integers(0, 60, (count, size, size, 3))
    return (noise + 60 * label).clip(0, 255).astype(np.uint8)


def write_image_folder(
    root: Path, classes: int = 3, count: int = 10, parts: tuple[str, ...] = ("train", "val", "test")
):
    for seed, name in enumerate(parts):
        for label in range(classes):
            folder = root / name / f"class{label}"
            folder.mkdir(parents=True)
            for number, pixels in enumerate(images(count, label, 8, seed)):
                Image.fromarray(pixels).save(folder / f"{number}.{'png' if number % 2 else 'jpg'}")
    return root


def write_cifar10(root: Path, count: int = 4) -> Path:
    """Write the files of CIFAR-10 with `count` images a class and batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels = np.concatenate([images(count, label, 32, seed) for label in range(10)])
        batch = {
            b"data": pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1),
            b"labels": [label for label in range(10) for _ in range(count)],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(
        pickle.dumps({b"label_names": [b"%d" % i for i in range(10)]}, protocol=2)
    )
    return root


def write_fashion_mnist(root: Path, source: Path, count: int = 200) -> Path:
    """Write the first images of the real data set as torchvision lays them out, unpacked."""
    folder = root / "FashionMNIST/raw"
    folder.mkdir(parents=True)
    for part_name in ("train", "t10k"):
        for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
            values = read_idx(source / f"{part_name}-{kind}-ubyte.gz", dimensions)[:count].numpy()
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            (folder / f"{part_name}-{kind}-ubyte").write_bytes(
                bytes([0, 0, 8, dimensions]) + sizes + values.tobytes()
            )
    return root


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str


def tree(folder: Path = Path(".")) -> dict[str, bytes | None]:
    """Return every file below a folder with its bytes, and every folder with None."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def without_seconds(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key != "seconds"}

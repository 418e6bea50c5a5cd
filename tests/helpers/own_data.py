"""Small folders of one's own data in every layout that `tutelage init` knows."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.dense import write_shapes
from tests.helpers.interactions import write_interactions
from tests.helpers.masks import brick, write_voc_masks
from tests.helpers.texts import write_beir

COLORS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def write_image(path: Path, color: tuple[int, int, int], number: int, side: int = 24) -> Path:
    """Write a noisy image of one color; no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(number)
    noise = torch.randint(-25, 25, (side, side, 3), generator=generator)
    pixels = (torch.tensor(color) + noise).clamp(0, 255).to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)
    return path


def write_tree(root: Path, counts: dict[str, int] | None = None, side: int = 24) -> Path:
    """Write one folder a color, in folders of parts if there are counts for them."""
    number = 0
    for part, count in (counts or {"": 20}).items():
        for name, color in COLORS.items():
            for _ in range(count):
                write_image(root / part / name / f"{number}.png", color, number, side)
                number += 1
    return root


def write_table(root: Path, header: list[str], rows: list[list[str]], name: str) -> Path:
    """Write a CSV file."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return root / name


def write_listed(root: Path) -> Path:
    """Write images with a table of paths, labels and parts."""
    rows = []
    for number in range(60):
        name = list(COLORS)[number % 3]
        write_image(root / "photos" / f"{number}.png", COLORS[name], number)
        part = "val" if number >= 48 else "train"
        rows.append([f"photos/{number}.png", name, part])
    write_table(root, ["file_name", "class", "split"], rows, "all.csv")
    return root


def write_multi_label(root: Path) -> Path:
    """Write images whose halves have colors, with a table of all colors in an image."""
    rows = []
    names = list(COLORS)
    for number in range(80):
        chosen = {names[number % 3], names[(number // 3) % 3]}
        path = root / "photos" / f"{number}.png"
        write_image(path, COLORS[names[number % 3]], number)
        pixels = Image.open(path).convert("RGB")
        other = Image.new("RGB", (24, 12), COLORS[names[(number // 3) % 3]])
        pixels.paste(other, (0, 12))
        pixels.save(path)
        rows.append([f"photos/{number}.png", "|".join(sorted(chosen))])
    write_table(root, ["path", "labels"], rows, "labels.csv")
    return root


def add_file(file: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar file."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    file.addfile(member, io.BytesIO(content))


def write_shards(root: Path, count: int = 60, per_shard: int = 25, ending: str = "cls") -> Path:
    """Write shards as webdataset does."""
    names = list(COLORS)
    root.mkdir(exist_ok=True)
    for first in range(0, count, per_shard):
        with tarfile.open(root / f"train-{first:04d}.tar", "w") as file:
            for number in range(first, min(count, first + per_shard)):
                path = write_image(root / "x.png", COLORS[names[number % 3]], number)
                label = json.dumps({"label": number % 3}) if ending == "json" else str(number % 3)
                add_file(file, f"a/{number:05d}.png", path.read_bytes())
                add_file(file, f"a/{number:05d}.{ending}", label.encode())
    (root / "x.png").unlink()
    return root


def write_masks(root: Path, images: str = "{part}", masks: str = "{part}annot") -> Path:
    """Write images with bricks and their masks in folders of their own."""
    generator = torch.Generator().manual_seed(0)
    number = 0
    for part, count in {"train": 12, "val": 3, "test": 3}.items():
        for _ in range(count):
            image, mask = brick((32, 48), generator)
            for pattern, pixels in ((images, image), (masks, mask)):
                path = root / pattern.replace("{part}", part) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(path)
            number += 1
    return root


def write_boxes(root: Path) -> Path:
    """Write boxes in COCO's format."""
    return write_shapes(root, {"train": 12, "val": 4, "test": 4}, (64, 80))


def write_mask_lists(root: Path) -> Path:
    """Write masks in VOC's layout."""
    return write_voc_masks(root, {"train": 12, "val": 4})


def write_parquet(root: Path) -> Path:
    """Write images into parquet files as a clone of a data set of the Hub has them."""
    datasets = pytest.importorskip("datasets")
    names = list(COLORS)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    (root / "data").mkdir(parents=True)
    for first, (part, count) in enumerate({"train": 48, "test": 12}.items()):
        rows = [image_bytes(root, number, 100 * first + number) for number in range(count)]
        labels = [number % 3 for number in range(count)]
        table = datasets.Dataset.from_dict({"image": rows, "label": labels}, features=features)
        table.to_parquet(str(root / f"data/{part}-00000-of-00001.parquet"))
    return root


def image_bytes(folder: Path, color: int, number: int) -> dict[str, bytes | None]:
    """Return an image as a row of a table has it."""
    path = write_image(folder / "x.png", list(COLORS.values())[color % 3], number)
    content = path.read_bytes()
    path.unlink()
    return {"bytes": content, "path": None}


# Layout -> what writes it, what it is for, and the recipe to start with.
LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "image-folder": (write_tree, "classification", "dist"),
    "table": (write_listed, "classification", "dist"),
    "multi-label": (write_multi_label, "multi-label classification", "rcka"),
    "parquet": (write_parquet, "classification", "dist"),
    "tar": (write_shards, "classification", "dist"),
    "coco": (write_boxes, "detection", "ssim"),
    "voc-masks": (write_mask_lists, "segmentation", "dist"),
    "masks": (write_masks, "segmentation", "dist"),
    "beir": (write_beir, "retrieval", "embed_distill"),
    "interactions": (write_interactions, "recommendation", "unkd"),
}

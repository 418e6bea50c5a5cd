"""The aerial images of trees that the package deepforest ships, cut into tiles."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from tutelage.data.coco_file import CocoImage, write_instances
from tutelage.data.image_folder import decode
from tutelage.data.prepare.folder import build, package_folder
from tutelage.data.prepare.voc import read_voc
from tutelage.errors import UserError

TRAIN, TEST = "2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop"
HELD = 0.3  # what lies left of this share of the second image's width is for validation
VISIBLE = 0.4  # share of a box that must lie in a tile
ADVICE = "pip install --no-deps deepforest"
Boxes = tuple[Tensor, Tensor, Tensor]


def prepare_deepforest(root: str | Path, size: int = 256, stride: int = 128) -> Path:
    """Cut two images with hand-made boxes into tiles, in COCO's format; return the folder.

    One image (2299 × 2472, 574 boxes) is trained on. The other one (1249 × 1035, 279 boxes), taken in other light, is
    cut in two: its left 30 % are for validation, the rest is tested on, so that what is chosen is chosen for the change
    of light too. Validation and test tiles do not overlap; training tiles without boxes are left out. B. Weinstein et
    al., "DeepForest", Methods in Ecology and Evolution 2020; files of the package deepforest (MIT).

    Args:
        root: the folder to make.
        size: side of a tile in pixels.
        stride: between the training tiles' corners; half of the size makes them overlap.

    Raises:
        UserError: the package is not installed.
    """
    if size < 32 or not 1 <= stride <= size:
        raise UserError(f"a tile has at least 32 pixels and a stride of 1 to that many, got {size} and {stride}")
    source = package_folder("deepforest", ADVICE) / "data"

    def write(folder: Path) -> None:
        photo, told = _photo(source, TRAIN)
        other, theirs = _photo(source, TEST)
        edge, end = int(HELD * other.shape[2]), other.shape[2]
        parts = {
            "train": (photo, told.boxes, stride),
            "val": (other[:, :, :edge], _between(theirs.boxes, 0, edge), size),
            "test": (other[:, :, edge:], _between(theirs.boxes, edge, end), size),
        }
        for name, (image, boxes, step) in parts.items():
            (folder / name).mkdir()
            tiles = list(_tiles(image.shape[1:], size, step))
            cut = (_cut(image, boxes, corner, size, folder / name) for corner in tqdm(tiles, desc=name, unit="tile"))
            found = [tile for tile in cut if name != "train" or len(tile.boxes)]
            write_instances(folder / "annotations" / f"instances_{name}.json", found, ["background", "tree"])

    return build(Path(root), write)


def _photo(source: Path, name: str) -> tuple[Tensor, CocoImage]:
    told, _ = read_voc(source / f"{name}.xml", image=source / f"{name}.png", first=0)
    return decode(told.path), told


def _between(boxes: Tensor, left: int, right: int) -> Tensor:
    """Return the boxes whose centre lies in a strip, counted from its left."""
    centre = boxes[:, 0::2].mean(1)
    return boxes[(centre >= left) & (centre < right)] - torch.tensor([left, 0, left, 0])


def _tiles(shape: tuple[int, ...], size: int, step: int) -> list[tuple[int, int]]:
    """Return the corners (y, x) of tiles; the last ones lie at the edge."""
    rows, columns = (
        sorted({*range(0, max(side - size, 0) + 1, step), max(side - size, 0)})
        if step < size
        else list(range(0, side, size))
        for side in shape
    )
    return [(y, x) for y in rows for x in columns]


def _cut(image: Tensor, boxes: Tensor, corner: tuple[int, int], size: int, folder: Path) -> CocoImage:
    """Write one tile, and return what lies in it."""
    from PIL import Image

    y, x = corner
    tile = image[:, y : y + size, x : x + size].contiguous()
    height, width = tile.shape[1:]
    moved = boxes - torch.tensor([x, y, x, y])
    inside = moved.clone()
    inside[:, 0::2].clamp_(0, width)
    inside[:, 1::2].clamp_(0, height)
    area, whole = ((box[:, 2:] - box[:, :2]).prod(1) for box in (inside, moved))
    kept = (area >= VISIBLE * whole) & (inside[:, 2:] > inside[:, :2]).all(1)
    path = folder / f"{y:05d}_{x:05d}.png"
    Image.fromarray(tile.permute(1, 2, 0).numpy()).save(path)
    count = int(kept.sum())
    labels, crowd = torch.ones(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
    return CocoImage(path, path, width, height, inside[kept], labels, area[kept], crowd)

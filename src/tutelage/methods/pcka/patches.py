"""Feature maps as matrices of patches: the size of the patches, and how maps are cut."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.methods._checks import check_choice, check_floating
from tutelage.similarity._checks import check_tensors

Over = Literal["channel", "image", "position"]
PatchSize = int | Literal["auto"]

LARGEST_PATCH = 16  # where "auto" starts: the paper's patch size
MIN_PATCHES = 4  # how many patches "auto" wants

# A map has the axes (0 image, 1 channel, 2 patch row, 3 height in the patch, 4 patch column,
# 5 width in the patch). For every `over`: the axes of the matrices, then those of their rows, which
# are always the patches, then those of their columns.
AXES: dict[Over, tuple[int, ...]] = {
    "channel": (1, 2, 4, 0, 3, 5),
    "image": (0, 2, 4, 1, 3, 5),
    "position": (3, 5, 2, 4, 0, 1),
}


class PatchGrid(NamedTuple):
    """The patches of a pair of maps.

    >>> grid = PatchGrid("channel", patch_size=16, rows=2, columns=3)
    >>> grid.num_patches, grid.map_size
    (6, (32, 48))

    Attributes:
        over: what the matrices stand for, one for every channel, image or position in the patch.
        patch_size: height and width of a patch.
        rows: how many patches lie above each other.
        columns: how many patches lie side by side.
    """

    over: Over
    patch_size: int
    rows: int
    columns: int

    @property
    def num_patches(self) -> int:
        """Number of patches of an image: the items that are related."""
        return self.rows * self.columns

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the maps to cut, multiples of the patch size."""
        return self.rows * self.patch_size, self.columns * self.patch_size

    def resize(self, maps: Tensor) -> Tensor:
        """Return maps (B, C, H, W) at `map_size`, bilinearly and in float32 or better.

        Maps that have this size are returned as they are.
        """
        if maps.shape[2:] == self.map_size:
            return maps
        with full_precision(maps.device):
            return F.interpolate(promote(maps), self.map_size, mode="bilinear", align_corners=False)

    def view(self, maps: Tensor) -> Tensor:
        """Return maps of `map_size` as a view with the six axes in the order of `AXES`."""
        images, channels = maps.shape[:2]
        patch = self.patch_size
        split = maps.view(images, channels, self.rows, patch, self.columns, patch)
        return split.permute(AXES[self.over])

    def matrix_shape(self, maps: Tensor) -> tuple[int, int, int]:
        """Return M matrices, p patches and q columns, the shape of what `cut` returns.

        >>> import torch
        >>> maps = torch.zeros(5, 7, 32, 48)
        >>> [PatchGrid(over, 16, 2, 3).matrix_shape(maps) for over in AXES]
        [(7, 6, 1280), (5, 6, 1792), (256, 6, 35)]
        """
        images, channels = maps.shape[:2]
        positions = self.patch_size**2
        if self.over == "channel":
            return channels, self.num_patches, images * positions
        if self.over == "image":
            return images, self.num_patches, channels * positions
        return positions, self.num_patches, images * channels

    def cut(self, maps: Tensor) -> Tensor:
        """Return the matrices (M, p, q) of maps of `map_size`."""
        return self.view(maps).reshape(self.matrix_shape(maps))


def patch_grid(
    student: Tensor,
    teacher: Tensor,
    *,
    patch_size: PatchSize = 16,
    over: Over = "channel",
) -> PatchGrid:
    """Return the patches that both maps have in common.

    >>> import torch
    >>> maps = torch.zeros(2, 3, 20, 33)
    >>> patch_grid(maps, maps).map_size
    (32, 48)
    >>> small = torch.zeros(2, 3, 8, 8)
    >>> patch_grid(small, small, patch_size="auto").patch_size
    4

    Args:
        student: maps (B, C, H, W).
        teacher: maps (B, C, H', W') of the same images and channels.
        patch_size: height and width of a patch; `"auto"` is 16, halved for a small map until there
            are 4 patches.
        over: what the matrices stand for.

    Raises:
        UserError: If the maps are not of the same images and channels, are empty or not floating,
            or if their sizes round up to different multiples of the patch size.
    """
    check_patches(patch_size, over)
    _check_maps(student, teacher)
    student_size = (student.shape[2], student.shape[3])
    teacher_size = (teacher.shape[2], teacher.shape[3])
    size = LARGEST_PATCH if isinstance(patch_size, str) else patch_size
    if patch_size == "auto":
        while size > 1 and _fewest_patches(student_size, teacher_size, size) < MIN_PATCHES:
            size //= 2
    student_grid = _rows_and_columns(student_size, size)
    teacher_grid = _rows_and_columns(teacher_size, size)
    if student_grid != teacher_grid:
        raise UserError(
            f"the student's map is {student_size[0]}×{student_size[1]} and the teacher's "
            f"{teacher_size[0]}×{teacher_size[1]}: {student_grid[0]}×{student_grid[1]} and "
            f"{teacher_grid[0]}×{teacher_grid[1]} patches of {size}×{size}; feed the teacher the "
            "student's transformed batch, and tap layers of the same stride"
        )
    rows, columns = student_grid
    return PatchGrid(over, size, rows, columns)


def check_patches(patch_size: PatchSize, over: Over) -> None:
    """Raise for options that are none of those of `patch_grid`.

    Raises:
        UserError: The message names the option.
    """
    if patch_size != "auto" and (not isinstance(patch_size, int) or patch_size < 1):
        raise UserError(
            f"patch_size must be a positive integer or 'auto', got {patch_size!r}; "
            "the paper's is 16"
        )
    check_choice("over", over, Over)


def _rows_and_columns(size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Return how many patches cover a map; the last ones may overlap its border."""
    height, width = size
    return -(-height // patch_size), -(-width // patch_size)


def _fewest_patches(
    student_size: tuple[int, int], teacher_size: tuple[int, int], patch_size: int
) -> int:
    student_rows, student_columns = _rows_and_columns(student_size, patch_size)
    teacher_rows, teacher_columns = _rows_and_columns(teacher_size, patch_size)
    return min(student_rows * student_columns, teacher_rows * teacher_columns)


def _check_maps(student: Tensor, teacher: Tensor) -> None:
    check_tensors("PCKA", student, teacher)
    shapes = f"{tuple(student.shape)} from the student and {tuple(teacher.shape)} from the teacher"
    if student.ndim != 4 or teacher.ndim != 4 or not (student.numel() and teacher.numel()):
        raise UserError(
            f"PCKA relates the patches of maps (B, C, H, W), got {shapes}; tap convolutional maps"
        )
    if student.shape[0] != teacher.shape[0]:
        raise UserError(
            f"PCKA needs the same images on both sides, got {shapes}; give both networks one batch"
        )
    if student.shape[1] != teacher.shape[1]:
        raise UserError(
            f"PCKA needs as many channels on both sides, got {shapes}; "
            "use an adapter, as the method PCKA builds one"
        )
    check_floating("PCKA needs floating-point maps", student, teacher)

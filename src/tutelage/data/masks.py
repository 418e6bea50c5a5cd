"""Images with masks: the class of every pixel, as a PNG file beside the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core.batch import IGNORE_INDEX
from tutelage.data._files import (
    LYING,
    NOT_UPRIGHT,
    check_image_files,
    decode_image,
    image_size,
    num_left_as_stored,
    stored_orientation,
)
from tutelage.data._text import is_file, warn_counts
from tutelage.data.dense import DenseSet
from tutelage.errors import UserError

VOID = 255  # in mask files, and in masks while they are augmented: a pixel without a class
SHOWN = 12  # numbers that a message lists
LOSSY = ("JPEG", "JPEG2000", "MPO", "WEBP", "AVIF")  # formats, by Pillow's names
SPREAD = {"L;2": 85, "L;4": 17}  # Pillow's factor for gray PNG files of fewer than 8 bits


@dataclass(frozen=True)
class MaskFormat:
    """What the numbers in mask files mean.

    Attributes:
        num_classes: number of classes.
        table: (n,) integer, the class of each number, 255 for none, and -1 for a number without a
            meaning, as those from n on are; None if the numbers are the classes, and 255 is none.
        accepts_values: whether the user can give such a table as `data.values`; for messages.
    """

    num_classes: int
    table: Tensor | None = None
    accepts_values: bool = False

    def read(self, path: Path) -> Tensor:
        """Return a mask file as uint8 (H, W) classes, 255 for none.

        Raises:
            UserError: If it is no image of class numbers, or has a number without a meaning.
        """
        numbers = read_numbers(path)
        if self.table is None:
            classes = numbers.clone()
            wrong = ((numbers < 0) | (numbers >= self.num_classes)) & (numbers != VOID)
        else:
            in_table = (numbers >= 0) & (numbers < len(self.table))
            classes = self.table[numbers.where(in_table, 0)].int().where(in_table, -1)
            wrong = classes < 0
        if wrong.any():
            y, x = wrong.nonzero()[0].tolist()
            advice = "; give the class of each number as data.values" if self.accepts_values else ""
            raise UserError(
                f"the mask {path} has the class {int(numbers[y, x])} at x={x}, y={y}, but "
                f"{self._known()}"
                f"{advice}"
            )
        return classes.to(torch.uint8)

    def _known(self) -> str:
        """Return which numbers there are, for a message."""
        if self.table is None:
            return f"there are {self.num_classes} (0 to {self.num_classes - 1}, {VOID} for none)"
        numbers = [str(number) for number in (self.table >= 0).nonzero().flatten().tolist()]
        more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
        return f"the numbers of this data set are {', '.join(numbers[:SHOWN])}{more}"


def value_table(values: Mapping[int, int], num_classes: int) -> Tensor:
    """Return the table of a `MaskFormat` in which only these numbers have a meaning.

    >>> value_table({0: 0, 3: 1, 2: 255}, num_classes=2).tolist()
    [0, -1, 255, 1]

    Args:
        values: number in the files -> class, 255 for none.
        num_classes: number of classes.

    Raises:
        UserError: If a number or a class is out of range.
    """
    if not isinstance(values, Mapping) or not values:
        raise UserError(
            f"data.values gives the class of each number, such as {{0: 0, 255: 1}}, got {values!r}"
        )
    for number, label in values.items():
        if not _is_whole(number) or not _is_whole(label):
            raise UserError(
                f"data.values has whole numbers, such as {{0: 0, 255: 1}}, got "
                f"{number!r}: {label!r}"
            )
        if not 0 <= number < 2**16 or not (0 <= label < num_classes or label == VOID):
            raise UserError(
                f"data.values gives the number {number} the class {label}; numbers are 0 to 65535, "
                f"classes 0 to {num_classes - 1}, and {VOID} is none"
            )
    table = torch.full((max(values) + 1,), -1, dtype=torch.int32)
    for number, label in values.items():
        table[number] = label
    return table


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class MaskSet(DenseSet):
    """Images with masks.

    A batch has `inputs` (N, 3, H, W) and `labels` (N, H, W) int64, -100 where a pixel has no class.
    Images of other sizes are padded with 0 and masks with -100, at the bottom and at the right.

    Args:
        pairs: the image file and the mask file of each.
        mask_format: how masks are read.
        ids: (N,) int64, positions in `pairs`.
        augment: a torchvision v2 transform, or None; it takes the mask as uint8, 255 for no class.
        seed: of the augmentation.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        mask_format: MaskFormat,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(torch.zeros(len(ids), dtype=torch.int64), ids, augment, seed)
        self.pairs = pairs
        self.mask_format = mask_format

    @property
    def reads_files(self) -> bool:
        """Images and masks are decoded whenever they are read."""
        return True

    @property
    def images(self) -> list[Path]:
        """The image files of all pairs."""
        return [image for image, _ in self.pairs]

    def image(self, position: int) -> Tensor:
        """Decode one image; it is put upright only if its mask is."""
        image_file, mask_file = self.pairs[int(self.ids[position])]
        return decode_image(image_file, image_size(mask_file))

    def target(self, position: int) -> Any:
        """Decode one mask."""
        from torchvision import tv_tensors

        _, mask_file = self.pairs[int(self.ids[position])]
        return tv_tensors.Mask(self.mask_format.read(mask_file))

    def plain_target(self, target: Any) -> Tensor:
        """Return the mask as int64, -100 for no class."""
        return mask_labels(target.as_subclass(Tensor))

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> MaskSet:
        """Return the samples at these positions, with another augmentation."""
        return MaskSet(self.pairs, self.mask_format, self.ids[positions], augment, seed)

    def collate(self, images: Sequence[Tensor], labels: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return images and masks as two tensors, the smaller ones padded."""
        height = max(mask.shape[0] for mask in labels)
        width = max(mask.shape[1] for mask in labels)

        def padded(tensor: Tensor, value: int) -> Tensor:
            right = width - tensor.shape[-1]
            bottom = height - tensor.shape[-2]
            return F.pad(tensor, (0, right, 0, bottom), value=value)

        return (
            torch.stack([padded(image, 0) for image in images]),
            torch.stack([padded(mask, IGNORE_INDEX) for mask in labels]),
        )


def mask_labels(masks: Tensor) -> Tensor:
    """Return masks of classes, 255 for none, as int64 labels, -100 for none."""
    labels = masks.long()
    return labels.masked_fill_(labels == VOID, IGNORE_INDEX)


def checked_mask_set(pairs: Sequence[tuple[Path, Path]], mask_format: MaskFormat) -> MaskSet:
    """Return images and masks as a set after checking every file.

    Raises:
        UserError: If a file is missing or broken, or a mask has another size than its image.
    """
    for image, mask in pairs:
        if not is_file(mask):
            raise UserError(
                f"the image {image} has no mask: {mask} is missing; add it, or leave the image out"
            )
    check_image_files([path for pair in pairs for path in pair])
    for image, mask in pairs:
        width, height = image_size(image)
        mask_size = image_size(mask)
        is_upright = mask_size == (height, width) and stored_orientation(image) in LYING
        if mask_size != (width, height) and not is_upright:
            raise UserError(
                f"the mask {mask} is {mask_size[0]}×{mask_size[1]} pixels, but its image {image} "
                f"is {width}×{height}; make them equal"
            )
    images = [image for image, _ in pairs]
    num_left = num_left_as_stored(images, [image_size(mask) for _, mask in pairs])
    if pairs:
        warn_counts(pairs[0][0].parent, {NOT_UPRIGHT: num_left})
    return MaskSet(pairs, mask_format, torch.arange(len(pairs)))


def scaled_crop(shortest: tuple[int, int], size: tuple[int, int]) -> nn.Module:
    """Return the usual augmentation of segmentation: resize at random, crop, mirror.

    Args:
        shortest: minimum and maximum length of the shorter side after resizing, in pixels.
        size: height and width of the crop; smaller images are padded, without a class.

    Raises:
        UserError: If the lengths are not 1 ≤ minimum ≤ maximum.
    """
    if not 1 <= shortest[0] <= shortest[1]:
        raise UserError(
            "data.shorter_side is the least and the greatest length in pixels, such as "
            f"[260, 1040], got {[*shortest]}"
        )
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    fill = {tv_tensors.Image: 0, tv_tensors.Mask: VOID, "others": 0}
    compose: nn.Module = v2.Compose(
        [
            v2.RandomResize(min_size=shortest[0], max_size=shortest[1] + 1, antialias=True),
            v2.RandomCrop(size, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(),
        ]
    )
    return compose


def read_numbers(path: Path) -> Tensor:
    """Return the numbers in a mask file, int32 (H, W)."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.format in LOSSY:
                raise UserError(
                    f"the mask {path} is a {file.format} file, which does not keep numbers as they "
                    "are; save it as PNG, from where it was not compressed yet"
                )
            if file.mode not in ("P", "L", "1", "I") and not file.mode.startswith("I;16"):
                raise UserError(
                    f"the mask {path} is an image of mode {file.mode}; a mask has one class "
                    "number a pixel, as a gray (L) or palette (P) PNG"
                )
            # Pillow spreads gray of 2 and 4 bits over 0 to 255.
            is_png = file.format == "PNG" and bool(file.tile)
            step = SPREAD.get(str(file.tile[0].args), 1) if is_png else 1
            numbers = torch.from_numpy(np.array(file).astype(np.int32))
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise UserError(
            f"the mask {path} cannot be decoded ({error}); mend it, or leave it out"
        ) from error
    return numbers // step

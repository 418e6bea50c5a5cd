"""Images with masks: the class of every pixel, as a PNG file beside the image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core.batch import IGNORE_INDEX
from tutelage.data._files import check_image_files, decode_image
from tutelage.data.dense import DenseSet
from tutelage.errors import UserError

VOID = 255  # in mask files, and in masks while they are augmented: a pixel without a class


@dataclass(frozen=True)
class MaskFormat:
    """What the numbers in mask files mean.

    Attributes:
        num_classes: number of classes.
        table: (256,) uint8, the class of each number, 255 for none; None if the numbers are the
            classes, and 255 is none.
    """

    num_classes: int
    table: Tensor | None = None

    def read(self, path: Path) -> Tensor:
        """Return a mask file as uint8 (H, W) classes, 255 for none.

        Raises:
            UserError: If it is no image of class numbers, or has a number without a meaning.
        """
        import numpy as np
        from PIL import Image

        try:
            with Image.open(path) as file:
                if file.mode not in ("P", "L"):
                    raise UserError(
                        f"the mask {path} is an image of mode {file.mode}; a mask has one class "
                        "number a pixel, as a gray (L) or palette (P) PNG"
                    )
                mask = torch.from_numpy(np.array(file))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(
                f"the mask {path} cannot be decoded ({error}); mend it, or leave it out"
            ) from error
        if self.table is not None:
            return self.table[mask.long()]
        wrong = (mask >= self.num_classes) & (mask != VOID)
        if wrong.any():
            y, x = wrong.nonzero()[0].tolist()
            raise UserError(
                f"the mask {path} has the class {int(mask[y, x])} at x={x}, y={y}, but there are "
                f"{self.num_classes} (0 to {self.num_classes - 1}, {VOID} for none)"
            )
        return mask


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

    def image(self, position: int) -> Tensor:
        """Decode one image."""
        image_file, _ = self.pairs[int(self.ids[position])]
        return decode_image(image_file)

    def target(self, position: int) -> Any:
        """Decode one mask."""
        from torchvision import tv_tensors

        _, mask_file = self.pairs[int(self.ids[position])]
        return tv_tensors.Mask(self.mask_format.read(mask_file))

    def plain_target(self, target: Any) -> Tensor:
        """Return the mask as int64, -100 for no class."""
        mask: Tensor = target.as_subclass(Tensor).long()
        return mask.masked_fill_(mask == VOID, IGNORE_INDEX)

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


def checked_mask_set(pairs: Sequence[tuple[Path, Path]], mask_format: MaskFormat) -> MaskSet:
    """Return images and masks as a set after checking every file.

    Raises:
        UserError: If a file is missing or broken, or a mask has another size than its image.
    """
    for image, mask in pairs:
        if not mask.is_file():
            raise UserError(
                f"the image {image} has no mask: {mask} is missing; add it, or leave the image out"
            )
    check_image_files([path for pair in pairs for path in pair])
    for image, mask in pairs:
        width, height = _size(image)
        mask_width, mask_height = _size(mask)
        if (mask_width, mask_height) != (width, height):
            raise UserError(
                f"the mask {mask} is {mask_width}×{mask_height} pixels, but its image {image} is "
                f"{width}×{height}; make them equal"
            )
    return MaskSet(pairs, mask_format, torch.arange(len(pairs)))


def scaled_crop(shortest: tuple[int, int], size: tuple[int, int]) -> nn.Module:
    """Return the usual augmentation of segmentation: resize at random, crop, mirror.

    Args:
        shortest: minimum and maximum length of the shorter side after resizing, in pixels.
        size: height and width of the crop; smaller images are padded, without a class.
    """
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


def _size(path: Path) -> tuple[int, int]:
    """Return width and height of an image file."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a very large image is no mistake
        with Image.open(path) as file:
            return file.size

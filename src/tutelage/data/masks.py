"""Images with a mask: the class of every pixel, as a PNG file beside the image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.core.batch import IGNORED
from tutelage.data.dense import DenseSet
from tutelage.data.image_folder import decode, refuse_broken
from tutelage.errors import UserError

VOID = 255  # in a mask as it is augmented: a pixel without a class


@dataclass(frozen=True)
class MaskFormat:
    """What the numbers in mask files mean.

    Attributes:
        classes: how many there are.
        table: (256,) uint8, the class of each number, 255 for none; None where the numbers are the classes, and 255 is
            none.
    """

    classes: int
    table: Tensor | None = None

    def read(self, path: Path) -> Tensor:
        """Return a mask file as uint8 (H, W) classes, 255 for none.

        Raises:
            UserError: it is no image of class numbers, or holds a number without a meaning.
        """
        import numpy as np
        from PIL import Image

        try:
            with Image.open(path) as file:
                if file.mode not in ("P", "L"):
                    raise UserError(
                        f"the mask {path} is an image of mode {file.mode}; a mask has one class number a pixel, as a "
                        "grey (L) or palette (P) PNG"
                    )
                mask = torch.from_numpy(np.array(file))
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"the mask {path} cannot be decoded ({error}); mend it, or leave it out") from error
        if self.table is not None:
            return self.table[mask.long()]
        wrong = (mask >= self.classes) & (mask != VOID)
        if wrong.any():
            y, x = wrong.nonzero()[0].tolist()
            raise UserError(
                f"the mask {path} has the class {int(mask[y, x])} at x={x}, y={y}, but there are {self.classes} "
                f"(0 to {self.classes - 1}, {VOID} for none)"
            )
        return mask


class MaskSet(DenseSet):
    """Images with masks.

    A target is an int64 mask (H, W), −100 where a pixel has no class. A batch is (images (N, 3, H, W), masks (N, H, W),
    ids); images of other sizes are filled up with 0 and masks with −100, at the bottom and at the right.

    Args:
        pairs: the image file and the mask file of each.
        form: how masks are read.
        positions: which of them, (N,) int64; these are the ids of the items.
        augment, seed: see `ImageSet`; it takes the mask as uint8, with 255 for none.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        form: MaskFormat,
        positions: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(torch.zeros(len(positions), dtype=torch.int64), positions, augment, seed)
        self.pairs, self.form = pairs, form

    def image(self, position: int) -> Tensor:
        """Decode one image."""
        return decode(self.pairs[int(self.index[position])][0])

    def target(self, position: int) -> Any:
        """Decode one mask."""
        from torchvision import tv_tensors

        return tv_tensors.Mask(self.form.read(self.pairs[int(self.index[position])][1]))

    def plain(self, target: Any) -> Tensor:
        """Return the mask as int64, −100 for none."""
        mask: Tensor = target.as_subclass(Tensor).long()
        return mask.masked_fill_(mask == VOID, IGNORED)

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> MaskSet:
        """Return the items at these positions, with another augmentation."""
        return MaskSet(self.pairs, self.form, self.index[positions], augment, seed)

    def joined(self, items: Sequence[Any]) -> Any:
        """Return items as one batch, the smaller ones filled up."""
        images, masks, index = zip(*items, strict=True)
        height, width = (max(int(mask.shape[axis]) for mask in masks) for axis in (0, 1))

        def filled(tensor: Tensor, value: int) -> Tensor:
            return F.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]), value=value)

        return (
            torch.stack([filled(image, 0) for image in images]),
            torch.stack([filled(mask, IGNORED) for mask in masks]),
            torch.stack(index),
        )


def paired(pairs: Sequence[tuple[Path, Path]], form: MaskFormat) -> MaskSet:
    """Return a set of images and masks, after a look at every file.

    Raises:
        UserError: a file is missing or broken, or a mask has another size than its image.
    """
    from PIL import Image

    for image, mask in pairs:
        if not mask.is_file():
            raise UserError(f"the image {image} has no mask: {mask} is missing; add it, or leave the image out")
    refuse_broken([path for pair in pairs for path in pair])
    for image, mask in pairs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(image) as one, Image.open(mask) as other:
                sizes = one.size, other.size
        if sizes[0] != sizes[1]:
            (width, height), (mask_width, mask_height) = sizes
            raise UserError(
                f"the mask {mask} is {mask_width}×{mask_height} pixels, but its image {image} is {width}×{height}; "
                "make them equal"
            )
    return MaskSet(pairs, form, torch.arange(len(pairs)))


def crops(shortest: tuple[int, int], size: tuple[int, int]) -> nn.Module:
    """Return the usual augmentation: resize at random, crop, mirror.

    Args:
        shortest: the least and the most that the shorter side becomes.
        size: height and width of the crop; what is smaller is filled up, without a class.
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

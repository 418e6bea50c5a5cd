"""Any images with masks: two folders a part, with files of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from tutelage.data._augmentation import mirror
from tutelage.data._files import require_folder
from tutelage.data._mask_classes import check_mask_classes
from tutelage.data._overlap import read_parts
from tutelage.data._settings import check_root, check_share
from tutelage.data._text import is_file, warn_counts
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.mask_array import resized_masks
from tutelage.data.masks import MaskFormat, MaskSet, checked_mask_set, scaled_crop, value_table
from tutelage.data.sets._image_tree import ENDINGS
from tutelage.errors import UserError

PART = "{part}"
MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif")  # of formats that keep numbers
ADVICE = (
    "lay it out as root/train/*.jpg with masks of the same names in root/trainannot/*.png, or say "
    "where they are with data.images and data.masks, such as images/{part} and masks/{part}"
)


class MaskFolder(ImageData):
    """Images and masks in folders of their own, where an image and its mask have the same name.

        train/one.jpg         trainannot/one.png   images: "{part}", masks: "{part}annot"
        images/train/one.jpg  masks/train/one.png  images: "images/{part}", masks: "masks/{part}"
        images/one.jpg        masks/one.png        images: "images", masks: "masks"; one part

    A mask is a gray or palette image (PNG, TIFF, BMP or GIF) with the class of every pixel, 255
    where there is none. Missing parts are cut: test 20 %, validation 10 % of what is left for
    training. Masks without an image are counted in a warning; an image without a mask is an error.

    Args:
        root: the folder.
        names: of the classes, from 0 on; the background counts if it is a number in the masks.
        images: where the images of a part are, below the root; `{part}` stands for its name.
        masks: where the masks of a part are, likewise.
        train: name of the training part.
        val: name of the validation part; None cuts it from the training part.
        test: name of the test part; None cuts it from the training part.
        values: number in the mask files -> class, 255 for none, such as {0: 0, 255: 1}; any other
            number is an error. None if the numbers are the classes, and 255 is none.
        size: height and width to which images and masks are brought, decoded once and kept in
            memory; None reads the files as they are, in every epoch.
        crop: without `size`, side of the training crops in pixels.
        shorter_side: without `size`, from and to which length of the shorter side, in pixels,
            training images are resized at random before they are cropped.
        validation: share of the training part that is held out where there is no such part.
        augment: True mirrors; without `size` it resizes by `shorter_side` and crops first.

    Raises:
        UserError: If a setting is of another kind or out of range.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        names: list[str],
        images: str = PART,
        masks: str = "{part}annot",
        train: str = "train",
        val: str | None = "val",
        test: str | None = "test",
        values: dict[int, int] | None = None,
        size: tuple[int, int] | None = None,
        crop: int = 480,
        shorter_side: tuple[int, int] = (260, 1040),
        validation: float = 0.1,
        augment: bool | nn.Module = True,
    ) -> None:
        check_root(root)
        check_share("data.validation", validation)
        if not names or not all(isinstance(name, str) for name in names):
            raise UserError(
                f"data.names are the names of the classes, such as [background, crack], got {names}"
            )
        if (PART in images) != (PART in masks):
            raise UserError(
                f"data.images is {images!r} and data.masks {masks!r}; name the part, {PART}, in "
                "both or in neither"
            )
        if PART not in images and (val is not None or test is not None):
            raise UserError(
                f"data.images is {images!r}, without {PART}, so that there is one part only; set "
                "data.val and data.test to null, and they are cut from it"
            )
        self.root = root
        self.names = names
        self.images = images
        self.masks = masks
        self.train = train
        self.val = val
        self.test = test
        self.values = values
        self.size = size
        self.crop = crop
        self.shorter_side = shorter_side
        self.validation = validation
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(self.names)

    def raw_splits(self) -> RawSplits:
        """Return the parts that have folders of their own."""
        root = require_folder(self.root, "the folder of images and masks", ADVICE)
        names = (self.train, self.val, self.test)
        train, validation, test = read_parts(
            names, partial(self._part, root), lambda part: part.images, root
        )
        if self.size is None:
            return train, validation, test
        size = self.size
        held_out = [None if p is None else resized_masks(p, size) for p in (validation, test)]
        return resized_masks(train, size), held_out[0], held_out[1]

    def standard_augmentation(self) -> nn.Module:
        """Mirror half of the images; files that are read as they are get resized and cropped."""
        if self.size is not None:
            return mirror()
        return scaled_crop(self.shorter_side, (self.crop, self.crop))

    def _part(self, root: Path, part: str, is_train: bool) -> MaskSet:
        pairs, without_image = mask_pairs(
            root / self.images.replace(PART, part), root / self.masks.replace(PART, part)
        )
        warn_counts(root, {f"masks of {part} without an image": without_image})
        num_classes = len(self.names)
        table = None if self.values is None else value_table(self.values, num_classes)
        masks = checked_mask_set(pairs, MaskFormat(num_classes, table, accepts_values=True))
        where = str(root / self.masks.replace(PART, part))
        check_mask_classes(masks, self.names, where, is_train)
        return masks


def mask_pairs(
    images: Path, masks: Path, advice: str = ADVICE
) -> tuple[list[tuple[Path, Path]], int]:
    """Return the images of a folder with their masks, and how many masks have no image.

    A mask that is missing is named as PNG: what reads the pairs says so.

    Args:
        images: folder of the images.
        masks: folder of the masks.
        advice: what is to be done where there is no image.

    Raises:
        UserError: If there is no image, or two masks or images have one name.
    """
    by_name = _by_name(masks, MASK_ENDINGS)
    found = _by_name(images, ENDINGS)
    if not found:
        raise UserError(f"{images} holds no images; {advice}")
    pairs = [(path, by_name.get(name, masks / f"{name}.png")) for name, path in found.items()]
    return pairs, sum(name not in found for name in by_name)


def _by_name(folder: Path, endings: Sequence[str] | set[str]) -> dict[str, Path]:
    """Return the files with one of these endings by name without ending, sorted."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or path.suffix.lower() not in endings or not is_file(path):
            continue
        if path.stem in files:
            raise UserError(
                f"{path} and {files[path.stem].name} have one name, so that it is not clear which "
                "mask belongs to which image; rename one with its mask"
            )
        files[path.stem] = path
    return files

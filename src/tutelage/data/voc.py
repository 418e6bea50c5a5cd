"""Masks in the layout of PASCAL VOC: lists of names, JPEG images, PNG masks whose numbers are the classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.data.base import Data, existing
from tutelage.data.masks import MaskFormat, MaskSet, crops, paired
from tutelage.errors import UserError

CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip
IMAGES, LISTS = "JPEGImages", "ImageSets/Segmentation"
ADVICE = f"unpack VOC2012 so that data.root, data.root/VOC2012 or data.root/VOCdevkit/VOC2012 holds {IMAGES}"


class VOCSegmentation(Data):
    """PASCAL VOC 2012, or anything in its layout.

    `ImageSets/Segmentation/<part>.txt` names the items, one a line; `JPEGImages/<name>.jpg` (or .png) are the images,
    `SegmentationClass/<name>.png` the masks: the class of every pixel, 255 where there is none (the outlines).

    Args:
        root: the folder, or what holds it as `VOC2012` or `VOCdevkit/VOC2012`.
        train, val, test: names of the parts; without `val`, validation images are cut from the training part; the
            defaults are VOC's own, whose `val` is what results are reported on.
        masks: folder of the masks; `SegmentationClassAug` with train `trainaug` are the 10 582 usual ones.
        names: of the classes, from 0 on; default: VOC's 21.
        crop: side of the training crops in pixels.
        validation: share of the training part that is kept for choosing.
        augment: True resizes the shorter side to 0.5 to 2 times 520 pixels, crops and mirrors.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self, root: str, train: str = "train", val: str | None = None, test: str | None = "val",
        masks: str = "SegmentationClass", names: list[str] | None = None, crop: int = 480, validation: float = 0.1,
        augment: bool | nn.Module = True,
    ) -> None:  # fmt: skip
        self.root, self.train, self.val, self.test, self.masks = root, train, val, test, masks
        self.names, self.crop, self.validation, self.augment = names, crop, validation, augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(CLASSES if self.names is None else self.names)

    def parts(self) -> tuple[MaskSet, MaskSet | None, MaskSet | None]:
        """Return the parts that have a list of their own."""
        root = existing(self.root, type(self).__name__, ADVICE)
        places = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
        found = next((place for place in places if (place / IMAGES).is_dir()), None)
        if found is None:
            raise UserError(f"{root} holds no {IMAGES}; {ADVICE}")
        form = MaskFormat(len(self.classes))
        train = voc_part(found, self.train, form, self.masks)
        val, test = (name and voc_part(found, name, form, self.masks) for name in (self.val, self.test))
        return train, val or None, test or None

    def standard_augmentation(self) -> nn.Module:
        """Resize at random, crop, mirror: torchvision's reference for these networks."""
        return crops((260, 1040), (self.crop, self.crop))


def voc_part(root: Path, name: str, form: MaskFormat, masks: str = "SegmentationClass") -> MaskSet:
    """Return the part that `ImageSets/Segmentation/<name>.txt` lists.

    Raises:
        UserError: the list, an image or a mask is missing, or broken.
    """
    listed = root / LISTS / f"{name}.txt"
    if not listed.is_file():
        there = ", ".join(sorted(path.stem for path in listed.parent.glob("*.txt"))) or "none"
        raise UserError(f"the list of the part {name!r}, {listed}, is missing; there are: {there}")
    return paired([_pair(root, item, masks, listed) for item in listed.read_text().split()], form)


def _pair(root: Path, item: str, masks: str, listed: Path) -> tuple[Path, Path]:
    for ending in (".jpg", ".png"):
        image = root / IMAGES / f"{item}{ending}"
        if image.is_file():
            return image, root / masks / f"{item}.png"
    raise UserError(f"{listed} names {item}, but {root / IMAGES / item}.jpg is missing; add it, or take the name out")

"""PASCAL VOC's masks, read from its layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from tutelage.data._files import require_folder
from tutelage.data._mask_classes import check_mask_classes
from tutelage.data._overlap import read_parts
from tutelage.data._text import existing, is_file, path_inside, read_lines, warn_counts
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.masks import (
    VOID,
    MaskFormat,
    MaskSet,
    checked_mask_set,
    scaled_crop,
    value_table,
)
from tutelage.errors import UserError

CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
IMAGES = "JPEGImages"
ENDINGS = (".jpg", ".png", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
TWICE = "names that the list has twice, which count once"
LISTS = "ImageSets/Segmentation"
ADVICE = (
    "unpack VOC2012 so that data.root, data.root/VOC2012 or data.root/VOCdevkit/VOC2012 holds "
    f"{IMAGES}"
)


class VOCSegmentation(ImageData):
    """PASCAL VOC 2012, or anything in its layout.

    `ImageSets/Segmentation/<part>.txt` names the samples, one a line. `JPEGImages/<name>.jpg` (or
    .png) are the images, `SegmentationClass/<name>.png` the masks: the class of every pixel, 255
    where there is none (the outlines). An image with an EXIF orientation is put upright if its mask
    has the size of the upright one.

    Classes that no training mask holds are named in a warning, and masks with nothing but one class
    and 255 are an error: there, 255 usually is the foreground, which `values` can say.

    Args:
        root: the folder, or what holds it as `VOC2012` or `VOCdevkit/VOC2012`.
        train: name of the training part.
        val: name of the validation part; None cuts it from the training part.
        test: name of the test part; the default is VOC's `val`, which results are reported on.
        masks: folder of the masks; `SegmentationClassAug` with train `trainaug` are the usual
            10 582.
        names: of the classes, from 0 on; None for VOC's 21.
        values: number in the mask files -> class, 255 for none, such as {0: 0, 255: 1}; any other
            number is an error. None if the numbers are the classes, and 255 is none.
        crop: side of the training crops in pixels.
        shorter_side: from and to which length of the shorter side, in pixels, training images are
            resized at random before they are cropped; small images want half and twice their own.
        validation: share of the training part that is held out for validation.
        augment: True resizes by `shorter_side`, crops and mirrors.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        train: str = "train",
        val: str | None = None,
        test: str | None = "val",
        masks: str = "SegmentationClass",
        names: list[str] | None = None,
        values: dict[int, int] | None = None,
        crop: int = 480,
        shorter_side: tuple[int, int] = (260, 1040),
        validation: float = 0.1,
        augment: bool | nn.Module = True,
    ) -> None:
        self.root = root
        self.train = train
        self.val = val
        self.test = test
        self.masks = masks
        self.names = names
        self.values = values
        self.crop = crop
        self.shorter_side = shorter_side
        self.validation = validation
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(CLASSES if self.names is None else self.names)

    def label_ids(self) -> list[int] | None:
        """Return the number of each class in the mask files, where `values` gives it one."""
        if self.values is None:
            return None
        numbers = {label: number for number, label in self.values.items() if label != VOID}
        is_unique = len(numbers) == sum(label != VOID for label in self.values.values())
        if not is_unique or sorted(numbers) != list(range(len(self.classes))):
            return None
        return [numbers[label] for label in sorted(numbers)]

    def raw_splits(self) -> RawSplits:
        """Return the parts that have a list of their own."""
        folder = self._folder()
        names = (self.train, self.val, self.test)
        return read_parts(names, partial(self._part, folder), lambda part: part.images, folder)

    def standard_augmentation(self) -> nn.Module:
        """Resize at random, crop, mirror: torchvision's reference for these networks."""
        return scaled_crop(self.shorter_side, (self.crop, self.crop))

    def _folder(self) -> Path:
        root = require_folder(self.root, type(self).__name__, ADVICE)
        for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
            if (folder / IMAGES).is_dir():
                return folder
        raise UserError(f"{root} holds no {IMAGES}; {ADVICE}")

    def _part(self, folder: Path, part: str, is_train: bool) -> MaskSet:
        num_classes = len(self.classes)
        table = None if self.values is None else value_table(self.values, num_classes)
        mask_format = MaskFormat(num_classes, table, accepts_values=True)
        masks = read_mask_part(folder, part, mask_format, self.masks)
        where = f"{folder / self.masks} that {part}.txt names"
        check_mask_classes(masks, self.classes, where, is_train)
        return masks


def read_mask_part(
    root: Path, part: str, mask_format: MaskFormat, masks: str = "SegmentationClass"
) -> MaskSet:
    """Return the part that `ImageSets/Segmentation/<part>.txt` lists.

    Raises:
        UserError: If the list, an image or a mask is missing, or broken.
    """
    list_file = root / LISTS / f"{part}.txt"
    if not is_file(list_file):
        parts = sorted(path.stem for path in list_file.parent.glob("*.txt"))
        raise UserError(
            f"the list of the part {part!r}, {list_file}, is missing; there are: "
            f"{', '.join(parts) or 'none'}"
        )
    names: list[str] = []
    for line in read_lines(list_file, "write one name a line"):
        # One name a line, which may have spaces in it, or several.
        whole = image_file(root, line, list_file)
        names += [line] if whole is not None else line.split()
    pairs = []
    for name in without_repeats(names, list_file):
        image = image_file(root, name, list_file)
        if image is None:
            raise UserError(
                f"{list_file} names {name[:100]}, but {root / IMAGES / name[:100]}.jpg is missing; "
                "add it, or take the name out"
            )
        pairs.append((image, existing(root / masks / f"{name}.png")))
    return checked_mask_set(pairs, mask_format)


def image_file(root: Path, name: str, list_file: Path) -> Path | None:
    """Return the image of a sample, with any usual ending; None if there is none."""
    return next(image_files(root, name, list_file), None)


def image_files(root: Path, name: str, list_file: Path) -> Iterator[Path]:
    """Yield the images of that name, which differ in their endings."""
    path = path_inside(root / IMAGES, name, str(list_file))
    for ending in ENDINGS:
        file = existing(path.with_name(path.name + ending))
        if is_file(file):
            yield file


def without_repeats(names: Sequence[str], list_file: Path) -> list[str]:
    """Return names without those that come twice, which are counted in a warning."""
    unique = list(dict.fromkeys(names))
    warn_counts(list_file, {TWICE: len(names) - len(unique)})
    return unique

"""Cityscapes: streets of German cities, 19 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.data._files import require_folder
from tutelage.data._mask_classes import check_mask_classes
from tutelage.data._overlap import read_parts
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.masks import VOID, MaskFormat, MaskSet, checked_mask_set, scaled_crop
from tutelage.errors import UserError

# The number of each class in a `labelIds` file.
CLASSES = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
NUM_NUMBERS = 34  # from 0 on; those without a class of the benchmark are ignored in it
LICENSE_PLATE = 255  # -1, as a byte
ADVICE = (
    "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, so that data.root holds "
    "leftImg8bit and gtFine"
)


class Cityscapes(ImageData):
    """Cityscapes as its archives unpack.

    Images are `leftImg8bit/<part>/<city>/*_leftImg8bit.png`, masks are
    `gtFine/<part>/<city>/*_gtFine_labelIds.png`. The 34 numbers of the files become the 19 classes
    of the benchmark; the others have no class.

    Args:
        root: the folder of both.
        train: name of the training part.
        val: name of the validation part; None cuts it from the training part.
        test: name of the test part; the default is Cityscapes' `val`, as is usual: the masks of its
            `test` are not public.
        crop: height and width of the training crops in pixels.
        shorter_side: from and to which length of the shorter side, in pixels, training images are
            resized at random before they are cropped.
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
        crop: tuple[int, int] = (512, 1024),
        shorter_side: tuple[int, int] = (512, 2048),
        validation: float = 0.1,
        augment: bool | nn.Module = True,
    ) -> None:
        self.root = root
        self.train = train
        self.val = val
        self.test = test
        self.crop = crop
        self.shorter_side = shorter_side
        self.validation = validation
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(CLASSES)

    def label_ids(self) -> list[int]:
        """Return the number of each class in the `labelIds` files."""
        return list(CLASSES.values())

    def raw_splits(self) -> RawSplits:
        """Return the parts that have a folder of their own."""
        return read_parts(
            (self.train, self.val, self.test), self._part, lambda part: part.images, self.root
        )

    def standard_augmentation(self) -> nn.Module:
        """Resize at random, crop, mirror."""
        return scaled_crop(self.shorter_side, self.crop)

    def _part(self, part: str, is_train: bool) -> MaskSet:
        root = require_folder(self.root, type(self).__name__, ADVICE)
        image_folder = root / "leftImg8bit" / part
        mask_folder = root / "gtFine" / part
        images = sorted(image_folder.glob("*/*_leftImg8bit.png"))
        if not images:
            raise UserError(f"{image_folder} holds no <city>/*_leftImg8bit.png; {ADVICE}")
        pairs = []
        for image in images:
            mask_name = image.name.replace("_leftImg8bit", "_gtFine_labelIds")
            pairs.append((image, mask_folder / image.parent.name / mask_name))
        masks = checked_mask_set(pairs, MaskFormat(len(CLASSES), train_ids()))
        check_mask_classes(masks, self.classes, str(mask_folder), is_train)
        return masks


def train_ids() -> Tensor:
    """Return the class of each number in a `labelIds` file; see `MaskFormat.table`.

    >>> train_ids()[[7, 33, 0, 9, 34]].tolist()
    [0, 18, 255, 255, -1]
    """
    table = torch.full((256,), -1, dtype=torch.int16)
    table[:NUM_NUMBERS] = VOID
    table[LICENSE_PLATE] = VOID
    for label, number in enumerate(CLASSES.values()):
        table[number] = label
    return table

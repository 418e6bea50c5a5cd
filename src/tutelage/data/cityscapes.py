"""Cityscapes: streets of German cities, 19 classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.data.base import Data, existing
from tutelage.data.masks import VOID, MaskFormat, MaskSet, crops, paired
from tutelage.errors import UserError

CLASSES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
ADVICE = (
    "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, so that data.root holds leftImg8bit and gtFine"
)


class Cityscapes(Data):
    """`leftImg8bit/<part>/<city>/*_leftImg8bit.png` with `gtFine/<part>/<city>/*_gtFine_labelIds.png`.

    The 34 numbers of the files become the 19 classes of the benchmark; the others have no class.

    Args:
        root: the folder of both.
        train, val, test: names of the parts; without `val`, validation images are cut from the training part; the
            defaults report on Cityscapes' `val`, as is usual: the masks of its `test` are not public.
        crop: height and width of the training crops in pixels.
        validation: share of the training part that is kept for choosing.
        augment: True resizes to 0.5 to 2 times the size, crops and mirrors.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self, root: str, train: str = "train", val: str | None = None, test: str | None = "val",
        crop: tuple[int, int] = (512, 1024), validation: float = 0.1, augment: bool | nn.Module = True,
    ) -> None:  # fmt: skip
        self.root, self.train, self.val, self.test = root, train, val, test
        self.crop, self.validation, self.augment = crop, validation, augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(CLASSES)

    def parts(self) -> tuple[MaskSet, MaskSet | None, MaskSet | None]:
        """Return the parts that have a folder of their own."""
        train = self._part(self.train)
        val, test = (None if name is None else self._part(name) for name in (self.val, self.test))
        return train, val, test

    def _part(self, name: str) -> MaskSet:
        root = existing(self.root, type(self).__name__, ADVICE)
        images = sorted((root / "leftImg8bit" / name).glob("*/*_leftImg8bit.png"))
        if not images:
            raise UserError(f"{root / 'leftImg8bit' / name} holds no <city>/*_leftImg8bit.png; {ADVICE}")
        masks = [
            root / "gtFine" / name / image.parent.name / image.name.replace("_leftImg8bit", "_gtFine_labelIds")
            for image in images
        ]
        return paired(list(zip(images, masks, strict=True)), MaskFormat(len(CLASSES), train_ids()))

    def standard_augmentation(self) -> nn.Module:
        """Resize at random, crop, mirror."""
        return crops((512, 2048), self.crop)


def train_ids() -> Tensor:
    """Return the class of each number in a `labelIds` file.

    >>> train_ids()[[7, 33, 0, 9]].tolist()
    [0, 18, 255, 255]
    """
    table = torch.full((256,), VOID, dtype=torch.uint8)
    for label, number in enumerate(CLASSES.values()):
        table[number] = label
    return table

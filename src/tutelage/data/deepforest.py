"""Trees from above: a small detection set with hand-made boxes that is installed with pip."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.data.base import Data
from tutelage.data.coco import BoxSet, Coco
from tutelage.data.prepare.deepforest import prepare_deepforest
from tutelage.data.prepare.folder import settings_key


class DeepForest(Data):
    """Tiles of two aerial images of the package deepforest (`pip install --no-deps deepforest`), one class: tree.

    The tiles are made when they are first asked for, see `prepare_deepforest`, and kept.

    Args:
        root: where the tiles are kept; a folder for these settings is made in it.
        size, stride: of the tiles in pixels.
        augment: True mirrors in both directions, since there is no up or down from above, and distorts colours and
            sharpness: the two images were not taken in the same light.
    """

    mean, std = None, None

    def __init__(
        self, root: str = "runs/data", size: int = 256, stride: int = 128, augment: bool | nn.Module = True
    ) -> None:
        self.root, self.size, self.stride, self.augment = root, size, stride, augment

    @property
    def folder(self) -> Path:
        """Where the tiles of these settings lie."""
        return Path(self.root).expanduser() / f"deepforest-{settings_key((self.size, self.stride))}"

    @property
    def classes(self) -> list[str]:
        """Background and tree."""
        return ["background", "tree"]

    def parts(self) -> tuple[BoxSet, BoxSet | None, BoxSet | None]:
        """Return the tiles."""
        folder = prepare_deepforest(self.folder, self.size, self.stride)
        return Coco(str(folder), train="train", val="val", test="test").parts()

    def standard_augmentation(self) -> nn.Module:
        """Mirror in both directions, distort colours, blur."""
        from torchvision.transforms import v2

        light = [v2.RandomPhotometricDistort(p=0.8), v2.RandomApply([v2.GaussianBlur(5, (0.3, 2.0))], 0.5)]
        compose: nn.Module = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), *light])
        return compose

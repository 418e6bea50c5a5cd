"""Grey and white matter of one averaged brain: a small segmentation set that is installed with pip."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.data.base import Data
from tutelage.data.masks import MaskFormat, MaskSet
from tutelage.data.prepare.folder import settings_key
from tutelage.data.prepare.mni152 import prepare_mni152
from tutelage.data.voc import voc_part


class MNI152(Data):
    """Axial slices of the MNI152 template in the package nilearn, 96 × 112 pixels, with added noise.

    The slices are made when they are first asked for, see `prepare_mni152`, and kept.

    Args:
        root: where the slices are kept; a folder for these settings is made in it.
        noise_seed: of the noise, which is in the images for good.
        augment: True mirrors left and right, as a brain nearly is.
    """

    mean, std = (0.23, 0.23, 0.23), (0.31, 0.31, 0.31)

    def __init__(self, root: str = "runs/data", noise_seed: int = 0, augment: bool | nn.Module = False) -> None:
        self.root, self.noise_seed, self.augment = root, noise_seed, augment

    @property
    def folder(self) -> Path:
        """Where the slices of these settings lie."""
        return Path(self.root).expanduser() / f"mni152-{settings_key(self.noise_seed)}"

    @property
    def classes(self) -> list[str]:
        """Background, grey matter and white matter."""
        return ["background", "grey matter", "white matter"]

    def parts(self) -> tuple[MaskSet, MaskSet | None, MaskSet | None]:
        """Return the slices."""
        folder, form = prepare_mni152(self.folder, self.noise_seed), MaskFormat(3)
        return voc_part(folder, "train", form), voc_part(folder, "val", form), voc_part(folder, "test", form)

    def standard_augmentation(self) -> nn.Module:
        """Mirror."""
        from torchvision.transforms import v2

        flip: nn.Module = v2.RandomVerticalFlip()  # left and right of the head lie along the height
        return flip

"""Cut-outs on photographs: objects and background, composed from two Debian packages."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.data.base import Data
from tutelage.data.masks import MaskFormat, MaskSet
from tutelage.data.prepare.folder import settings_key
from tutelage.data.prepare.tuxpaint import prepare_tuxpaint
from tutelage.data.voc import voc_part


class TuxPaint(Data):
    """Tux Paint's photographic stamps on photographs (`apt-get install tuxpaint-stamps-default opencv-doc`).

    The images are made when they are first asked for, see `prepare_tuxpaint`, and kept.

    Args:
        root: where the images are kept; a folder for these settings is made in it.
        size: side of the images in pixels.
        composition_seed: of the parts and the composition.
        augment: True mirrors.
    """

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self, root: str = "runs/data", size: int = 96, composition_seed: int = 0, augment: bool | nn.Module = False
    ) -> None:
        self.root, self.size, self.composition_seed, self.augment = root, size, composition_seed, augment

    @property
    def folder(self) -> Path:
        """Where the images of these settings lie."""
        return Path(self.root).expanduser() / f"tuxpaint-{settings_key((self.size, self.composition_seed))}"

    @property
    def classes(self) -> list[str]:
        """Background and object."""
        return ["background", "object"]

    def parts(self) -> tuple[MaskSet, MaskSet | None, MaskSet | None]:
        """Return the images."""
        folder, form = prepare_tuxpaint(self.folder, self.size, self.composition_seed), MaskFormat(2)
        return voc_part(folder, "train", form), voc_part(folder, "val", form), voc_part(folder, "test", form)

    def standard_augmentation(self) -> nn.Module:
        """Mirror."""
        from torchvision.transforms import v2

        flip: nn.Module = v2.RandomHorizontalFlip()
        return flip

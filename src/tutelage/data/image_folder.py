"""Any tree of images with one folder a class; files are decoded when they are asked for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.base import Data, existing
from tutelage.data.image_set import ImageSet
from tutelage.errors import UserError

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
ADVICE = "lay it out as root/train/<class>/*.jpg and root/val/<class>/*.jpg, or root/<class>/*.jpg, and set data.root"


class FileSet(ImageSet):
    """Images in files.

    Args:
        paths: of every image.
        size: side of the square that an image is resized and cropped to, when nothing augments it.
        labels, index, augment, seed: see `ImageSet`.
    """

    def __init__(
        self, paths: list[Path], size: int, labels: Tensor, index: Tensor, augment: nn.Module | None, seed: int
    ) -> None:
        super().__init__(labels, index, augment, seed)
        self.paths, self.size = paths, size

    def image(self, position: int) -> Tensor:
        """Decode one image; resized and centre-cropped unless an augmentation does that itself."""
        image = decode(self.paths[position])
        return image if self.augment is not None else _centre(image, self.size)

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> FileSet:
        """Return the items at these positions, with another augmentation."""
        paths = [self.paths[i] for i in positions.tolist()]
        return FileSet(paths, self.size, self.labels[positions], self.index[positions], augment, seed)


class ImageFolder(Data):
    """Images in one folder a class: `root/<class>/…`, or `root/train/<class>/…` with `root/val/…` and `root/test/…`.

    Missing parts are cut: test 20 %, validation 10 % of what is left for training. Hidden files are passed over.
    Transparent images are put on white, grey ones become RGB.

    Args:
        root: the folder.
        size: side of the square images in pixels.
        validation: share of the training part that is kept for choosing, where there is no root/val.
        augment: True crops at random scale and mirrors.
        mean, std: of [0, 1] pixels; default ImageNet's.
    """

    def __init__(
        self,
        root: str,
        size: int = 224,
        validation: float = 0.1,
        augment: bool | nn.Module = True,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        self.root, self.size, self.validation, self.augment = root, size, validation, augment
        self.mean, self.std = mean, std

    @property
    def classes(self) -> list[str]:
        """Names of the class folders, sorted."""
        root = existing(self.root, "the image folder", ADVICE)
        train = root / "train" if (root / "train").is_dir() else root
        found = sorted(p.name for p in train.iterdir() if p.is_dir() and not p.name.startswith("."))
        if len(found) < 2:
            raise UserError(f"{train} holds {len(found)} class folders, at least 2 are needed; {ADVICE}")
        return found

    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return the parts that have a folder of their own."""
        root, classes = Path(self.root).expanduser(), self.classes
        if not (root / "train").is_dir():
            return self._part(root, classes), None, None
        validation, test = (
            self._part(root / name, classes) if (root / name).is_dir() else None for name in ("val", "test")
        )
        return self._part(root / "train", classes), validation, test

    def _part(self, folder: Path, classes: list[str]) -> FileSet:
        strange = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes and p.name[0] != ".")
        if strange:
            raise UserError(
                f"{folder} has a class {strange[0]!r} that the training part lacks; every part needs the same classes"
            )
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = [
                p for p in (folder / name).rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
            ]
            if not files and folder.name not in ("val", "test"):
                raise UserError(f"{folder / name} holds no image ({', '.join(sorted(ENDINGS))}); {ADVICE}")
            paths += sorted(files)
            labels += [label] * len(files)
        return FileSet(paths, self.size, torch.tensor(labels, dtype=torch.int64), torch.arange(len(paths)), None, 0)

    def standard_augmentation(self) -> nn.Module:
        """Crop at random scale and aspect, mirror: the augmentation of ImageNet recipes."""
        from torchvision.transforms import v2

        compose: nn.Module = v2.Compose([v2.RandomResizedCrop(self.size, antialias=True), v2.RandomHorizontalFlip()])
        return compose


def decode(path: Path) -> Tensor:
    """Return a file's image as uint8 (3, H, W).

    Raises:
        UserError: the file is missing, truncated or no image.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = (
                file.convert("RGBA") if "A" in file.getbands() or "transparency" in file.info else file.convert("RGB")
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be decoded as an image ({error}); mend or remove the file") from error
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _centre(image: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2 import functional

    cropped: Tensor = functional.center_crop(functional.resize(image, [size], antialias=True), [size, size])
    return cropped

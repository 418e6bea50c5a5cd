"""Any tree of images with one folder a class; files are decoded when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data.base import Data, existing
from tutelage.data.image_set import ImageSet
from tutelage.errors import UserError

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
CHUNK = 1000  # files a thread looks at in one go
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
        if size < 1:
            raise UserError(f"data.size is the side of the images in pixels, at least 1, got {size}")
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
        refuse_broken(paths)
        return FileSet(paths, self.size, torch.tensor(labels, dtype=torch.int64), torch.arange(len(paths)), None, 0)

    def standard_augmentation(self) -> nn.Module:
        """Crop at random scale and aspect, mirror: the augmentation of ImageNet recipes."""
        from torchvision.transforms import v2

        compose: nn.Module = v2.Compose([v2.RandomResizedCrop(self.size, antialias=True), v2.RandomHorizontalFlip()])
        return compose


def refuse_broken(paths: Sequence[Path]) -> None:
    """Look at the beginning and the end of every file, so that a broken one stops a run before it starts.

    About 20 microseconds for a JPEG or PNG file; doubtful ones and other formats are decoded.

    Raises:
        UserError: a file is empty, truncated or no image.
    """

    def look(start: int) -> None:
        for path in paths[start : start + CHUNK]:
            if not _whole(path):
                decode(path)

    with ThreadPoolExecutor() as pool:
        list(pool.map(look, range(0, len(paths), CHUNK)))


def _whole(path: Path) -> bool:
    """Return whether a JPEG or PNG file has its beginning and its end; other formats are never sure."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in tail
    return head == b"\x89PNG\r\n\x1a\n" and b"IEND" in tail


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

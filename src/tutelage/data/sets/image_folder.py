"""Any tree of images with one folder a class; files are decoded when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data._augmentation import resized_crop
from tutelage.data._files import check_image_files, decode_image, require_folder
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_set import ImageSet
from tutelage.errors import UserError

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
ADVICE = (
    "lay it out as root/train/<class>/*.jpg and root/val/<class>/*.jpg, or root/<class>/*.jpg, and "
    "set data.root"
)


class FileSet(ImageSet):
    """Images in files.

    Args:
        paths: of every image.
        size: side of the square that an image is resized and cropped to without augmentation.
        labels: (N,) int64.
        ids: (N,) int64.
        augment: a torchvision v2 transform that gives images of one size, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        labels: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(labels, ids, augment, seed)
        self.paths = list(paths)
        self.size = size

    def image(self, position: int) -> Tensor:
        """Decode one image; resized and center-cropped unless an augmentation does that."""
        image = decode_image(self.paths[position])
        return image if self.augment is not None else _center_crop(image, self.size)

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> FileSet:
        """Return the samples at these positions, with another augmentation."""
        return FileSet(
            paths=[self.paths[position] for position in positions.tolist()],
            size=self.size,
            labels=self.labels[positions],
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )


class ImageFolder(ImageData):
    """Images in one folder a class.

    The layout is `root/<class>/…`, or `root/train/<class>/…` with `root/val/…` and `root/test/…`.
    Missing parts are cut: test 20 %, validation 10 % of what is left for training. Hidden files are
    ignored. Transparent images are put on white, gray ones become RGB.

    Args:
        root: the folder.
        size: side of the square images in pixels.
        validation: share of the training part that is held out for validation, where there is no
            root/val.
        augment: True crops at random scale and mirrors.
        mean: per channel, of [0, 1] pixels; the default is ImageNet's.
        std: per channel, of [0, 1] pixels; the default is ImageNet's.
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
            raise UserError(
                f"data.size is the side of the images in pixels, at least 1, got {size}"
            )
        self.root = root
        self.size = size
        self.validation = validation
        self.augment = augment
        self.mean = mean
        self.std = std

    @property
    def classes(self) -> list[str]:
        """Names of the class folders, sorted."""
        root = require_folder(self.root, "the image folder", ADVICE)
        train = root / "train" if (root / "train").is_dir() else root
        names = _class_folders(train)
        if len(names) < 2:
            raise UserError(
                f"{train} holds {len(names)} class folders, at least 2 are needed; {ADVICE}"
            )
        return names

    def raw_splits(self) -> RawSplits:
        """Return the parts that have a folder of their own."""
        classes = self.classes
        root = Path(self.root).expanduser()
        if not (root / "train").is_dir():
            return self._part(root, classes), None, None
        validation = root / "val"
        test = root / "test"
        return (
            self._part(root / "train", classes),
            self._part(validation, classes) if validation.is_dir() else None,
            self._part(test, classes) if test.is_dir() else None,
        )

    def standard_augmentation(self) -> nn.Module:
        """Crop at random scale and aspect, mirror: the augmentation of ImageNet recipes."""
        return resized_crop(self.size)

    def _part(self, folder: Path, classes: Sequence[str]) -> FileSet:
        for name in _class_folders(folder):
            if name not in classes:
                raise UserError(
                    f"{folder} has a class {name!r} that the training part lacks; every part needs "
                    "the same classes"
                )
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = _image_files(folder / name)
            # In validation and test parts a class may be missing.
            if not files and folder.name not in ("val", "test"):
                raise UserError(
                    f"{folder / name} holds no image ({', '.join(sorted(ENDINGS))}); {ADVICE}"
                )
            paths += files
            labels += [label] * len(files)
        check_image_files(paths)
        return FileSet(
            paths=paths,
            size=self.size,
            labels=torch.tensor(labels, dtype=torch.int64),
            ids=torch.arange(len(paths)),
        )


def _class_folders(folder: Path) -> list[str]:
    paths = [path for path in folder.iterdir() if path.is_dir()]
    return sorted(path.name for path in paths if not path.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )


def _center_crop(image: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2 import functional

    resized = functional.resize(image, [size], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [size, size])
    return cropped

"""Any tree of images with one folder a class; files are decoded when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data._augmentation import PaddedCrop, resized_crop
from tutelage.data._files import check_image_files, decode_image, require_folder
from tutelage.data._overlap import warn_repeated, warn_shared
from tutelage.data._settings import check_root, check_share, check_side, check_statistics
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_input import ImageInput
from tutelage.data.image_set import ImageSet
from tutelage.data.sets._image_tree import ENDINGS, ImageTree, find_tree
from tutelage.errors import UserError

ADVICE = (
    "lay it out as root/train/<class>/*.jpg and root/val/<class>/*.jpg, or root/<class>/*.jpg, and "
    "set data.root"
)


MAX_SMALL = 64  # side of images that are augmented as CIFAR's are
MAX_KEPT_BYTES = 2**29  # of a part whose small images are decoded once


class FileSet(ImageSet):
    """Images in files.

    Small ones, of up to 64 pixels, are decoded once and kept in memory, up to 512 MB.

    Args:
        paths: of every image.
        size: side of the square that an image is resized and cropped to, unless an augmentation
            other than `PaddedCrop` does that.
        labels: (N,) int64.
        ids: (N,) int64.
        augment: a torchvision v2 transform that gives images of one size, or None.
        seed: of the augmentation.
        kept: images that are decoded already, by path; None keeps none.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: int,
        labels: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
        kept: dict[Path, Tensor] | None = None,
    ) -> None:
        super().__init__(labels, ids, augment, seed)
        self.paths = list(paths)
        self.size = size
        self.kept = kept

    def image(self, position: int) -> Tensor:
        """Return one image, resized and center-cropped unless an augmentation does that."""
        path = self.paths[position]
        if self.augment is not None and not isinstance(self.augment, PaddedCrop):
            return decode_image(path)
        if self.kept is not None and path in self.kept:
            return self.kept[path]
        image = _center_crop(decode_image(path), self.size)
        if self.kept is not None:
            self.kept[path] = image
        return image

    def input_rule(self) -> ImageInput:
        """Return that the center of an image is taken, as `image` does without augmentation."""
        return ImageInput(3, (self.size, self.size), "center-crop")

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> FileSet:
        """Return the samples at these positions, with another augmentation."""
        return FileSet(
            paths=[self.paths[position] for position in positions.tolist()],
            size=self.size,
            labels=self.labels[positions],
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
            kept=self.kept,
        )


class ImageFolder(ImageData):
    """Images in one folder a class.

    The layout is `root/<class>/…`, or `root/train/<class>/…` with `root/val/…` and `root/test/…`;
    `training`, `valid`, `validation`, `dev` and `testing` are taken for parts, too, in any case of
    letters; other folders that look like parts, such as `train_set` and `test_set`, are refused.
    Missing parts are cut: test 20 %, validation 10 % of what is left for training. Images that are
    in the training part twice, or in another part too, are told in a warning.

    Images lie at any depth below their class, and links to folders are followed. Hidden folders
    are ignored; what else is not read is counted in one warning. Images are put upright as
    their EXIF orientation says. Transparent ones are put on white, gray ones become RGB, 16-bit
    ones are scaled to 8 bits from their whole range, and of an animation the first frame is taken.

    Args:
        root: the folder.
        size: side of the square images in pixels.
        validation: share of the training part that is held out for validation, where there is no
            root/val.
        augment: True crops at random scale and mirrors; up to a size of 64 pixels it pads by an
            eighth of the size, crops and mirrors, as for CIFAR.
        mean: per channel, of [0, 1] pixels; the default is ImageNet's.
        std: per channel, of [0, 1] pixels; the default is ImageNet's.

    Raises:
        UserError: If one of them is of another kind or out of range.
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
        check_root(root)
        check_side(size)
        check_share("data.validation", validation, zero=True)
        check_statistics("data.mean", mean)
        check_statistics("data.std", std)
        self.root = root
        self.size = size
        self.validation = validation
        self.augment = augment
        self.mean = mean
        self.std = std

    @property
    def classes(self) -> list[str]:
        """Names of the class folders, sorted."""
        return self._classes(self._tree())

    def raw_splits(self) -> RawSplits:
        """Return the parts that have a folder of their own."""
        tree = self._tree()
        classes = self._classes(tree)
        train = self._part(tree, "train", classes)
        validation = self._part(tree, "validation", classes) if "validation" in tree.parts else None
        test = self._part(tree, "test", classes) if "test" in tree.parts else None
        tree.warn()
        warn_repeated(train.paths, str(tree.parts["train"]))
        for name, part in (("validation", validation), ("test", test)):
            if part is not None:
                where = f"the training and the {name} part of {tree.root}"
                warn_shared(train.paths, part.paths, where)
        return train, validation, test

    def standard_augmentation(self) -> nn.Module:
        """Return CIFAR's augmentation for small images, else that of ImageNet recipes."""
        if self.size <= MAX_SMALL:
            return PaddedCrop(self.size, padding=self.size // 8)
        return resized_crop(self.size)

    def _tree(self) -> ImageTree:
        return find_tree(require_folder(self.root, "the image folder", ADVICE))

    def _classes(self, tree: ImageTree) -> list[str]:
        names = tree.classes
        if len(names) < 2:
            raise UserError(
                f"{tree.parts['train']} holds {len(names)} class folders, at least 2 are needed; "
                f"{ADVICE}"
            )
        return names

    def _part(self, tree: ImageTree, part: str, classes: Sequence[str]) -> FileSet:
        folder = tree.parts[part]
        for name in tree.class_names(folder):
            if name not in classes:
                raise UserError(
                    f"{folder} has a class {name!r} that the training part lacks; every part needs "
                    "the same classes"
                )
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            # In validation and test parts a class may be missing.
            files = tree.images(folder / name) if (folder / name).is_dir() else []
            if not files and part == "train":
                raise UserError(
                    f"{folder / name} holds no image ({', '.join(sorted(ENDINGS))}); {ADVICE}"
                )
            paths += files
            labels += [label] * len(files)
        if not paths:
            raise UserError(
                f"{folder} has no folder of a class with images in it; sort its images into one "
                f"folder a class, or move it out of {tree.root}, and that part is cut from the "
                "training part"
            )
        check_image_files(paths)
        return FileSet(
            paths=paths,
            size=self.size,
            labels=torch.tensor(labels, dtype=torch.int64),
            ids=torch.arange(len(paths)),
            kept={} if self._fits_in_memory(len(paths)) else None,
        )

    def _fits_in_memory(self, count: int) -> bool:
        return self.size <= MAX_SMALL and count * 3 * self.size**2 <= MAX_KEPT_BYTES


def _center_crop(image: Tensor, size: int) -> Tensor:
    from torchvision.transforms.v2 import functional

    resized = functional.resize(image, [size], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [size, size])
    return cropped

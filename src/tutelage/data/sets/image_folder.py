"""Any tree of images with one folder a class; files are decoded when they are read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from tutelage.data._checked import check_once
from tutelage.data._files import check_image_files, require_folder
from tutelage.data._overlap import warn_repeated, warn_shared
from tutelage.data._settings import check_root
from tutelage.data.file_set import Decode, FileSet, ImageFiles
from tutelage.data.image_data import RawSplits
from tutelage.data.sets._image_tree import ENDINGS, ImageTree, find_tree
from tutelage.data.sets._open_folder import ImageColumns
from tutelage.data.square_images import SquareImages
from tutelage.errors import UserError

ADVICE = (
    "lay it out as root/train/<class>/*.jpg and root/val/<class>/*.jpg, or root/<class>/*.jpg, and "
    "set data.root"
)


class ImageFolder(SquareImages):
    """Images in one folder a class.

    The layout is `root/<class>/…`, or `root/train/<class>/…` with `root/val/…` and `root/test/…`;
    `training`, `valid`, `validation`, `dev` and `testing` are taken for parts, too, in any case of
    letters; other folders that look like parts, such as `train_set` and `test_set`, are refused.
    Missing parts are cut: test 20 %, validation 10 % of what is left for training. Images that are
    in the training part twice, or in another part too, are named in a warning.

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
        decode: `memory` and `disk` keep the images decoded, as uint8: in memory from the first
            epoch on, or in the user's cache folder before it, where later runs find them. They are
            resized and cropped to squares of `size`, and to squares of 8/7 of it where the
            augmentation crops at random scale, which then never sees more. `none` decodes at every
            use; `auto` keeps images in memory that are small (64 pixels) and few (512 MB a part)
            unless they are cropped at random scale.
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
        decode: Decode = "auto",
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(size, validation, augment, mean, std)
        check_root(root)
        if decode not in get_args(Decode):
            raise UserError(f"data.decode is one of {list(get_args(Decode))}, got {decode!r}")
        self.root = root
        self.decode = decode

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
        parts = {"train": train, "validation": validation, "test": test}
        given = {
            name: part.files
            for name, part in parts.items()
            if part is not None and isinstance(part.files, ImageFiles)
        }
        state = " ".join(f"{name}={files.digest}" for name, files in given.items())
        check_once(state, lambda: _check(tree, given))
        return train, validation, test

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
        present = set(tree.class_names(folder))
        lacking = sorted(present - set(classes))
        if lacking:
            raise UserError(
                f"{folder} has a class {lacking[0]!r} that the training part lacks; every part "
                "needs the same classes"
            )
        found = ImageColumns()
        counts: list[int] = []
        for name in classes:
            before = len(found.paths)
            # In validation and test parts a class may be missing.
            if name in present:
                tree.add_images(os.path.join(folder, name), found)
            counts.append(len(found.paths) - before)
            if not counts[-1] and part == "train":
                raise UserError(
                    f"{folder / name} holds no image ({', '.join(sorted(ENDINGS))}); {ADVICE}"
                )
        if not found.paths:
            raise UserError(
                f"{folder} has no folder of a class with images in it; sort its images into one "
                f"folder a class, or move it out of {tree.root}, and that part is cut from the "
                "training part"
            )
        rows = torch.arange(len(found.paths))
        states = np.stack([np.asarray(found.sizes), np.asarray(found.times)], 1)
        return FileSet(
            files=ImageFiles(found.paths, states, self.decode),
            rows=rows,
            size=self.size,
            labels=torch.arange(len(classes)).repeat_interleave(torch.tensor(counts)),
            ids=rows,
        )


def _check(tree: ImageTree, parts: Mapping[str, ImageFiles]) -> None:
    """Raise for a file that is no whole image, and warn of images that are there twice."""
    paths = {name: [Path(path) for path in files.paths] for name, files in parts.items()}
    for part in paths.values():
        check_image_files(part)
    warn_repeated(paths["train"], str(tree.parts["train"]))
    for name, part in paths.items():
        if name != "train":
            where = f"the training and the {name} part of {tree.root}"
            warn_shared(paths["train"], part, where)

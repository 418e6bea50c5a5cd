"""Images with boxes in COCO's format: folders of images, and one `instances` JSON file for each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data._augmentation import mirror
from tutelage.data._files import (
    NOT_UPRIGHT,
    check_image_files,
    decode_image,
    num_left_as_stored,
    require_folder,
)
from tutelage.data._overlap import read_parts
from tutelage.data._text import is_file, warn_counts
from tutelage.data.dense import DenseSet
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_input import ImageInput
from tutelage.data.sets._coco_file import CocoImage, read_classes, read_instances
from tutelage.errors import UserError

PREFIX = "instances_"  # of the file of a part, before its name
MIN_SIDE = 1.0  # in pixels, of a box that an augmentation has cut
ADVICE = (
    "lay it out as root/annotations/instances_<part>.json and root/<part>/*.jpg, and set data.root"
)


class BoxSet(DenseSet):
    """Images with boxes.

    In a batch, `inputs` is a list of images and `labels` a list of dicts: `boxes` (n, 4) float32,
    corners x1, y1, x2, y2 in pixels; `labels` (n,) int64, from 1 on; `area` (n,) float32 in pixels
    and `iscrowd` (n,) bool, as the file has them; `single`, the positions of boxes that are no
    crowd; `image_id`, an int64 scalar.

    Args:
        images: what the file says of each.
        ids: (N,) int64, positions in `images`.
        augment: a torchvision v2 transform of images and boxes, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Sequence[CocoImage],
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(torch.zeros(len(ids), dtype=torch.int64), ids, augment, seed)
        self.images = images

    @property
    def reads_files(self) -> bool:
        """Images are decoded whenever they are read."""
        return True

    def image(self, position: int) -> Tensor:
        """Decode one image; it is put upright if the size in the file is that of the upright one.

        Raises:
            UserError: If it cannot be decoded, or has another size than the file says.
        """
        described = self.images[int(self.ids[position])]
        image = decode_image(described.path, (described.width, described.height))
        height, width = image.shape[1:]
        if (height, width) != (described.height, described.width):
            raise UserError(
                f"{described.path} is {width}×{height} pixels, but 'width' and 'height' in "
                f"{described.source} say {described.width}×{described.height}; correct them there, "
                "since its boxes are in those pixels"
            )
        return image

    def input_rule(self) -> ImageInput:
        """Return that an image enters as it is, in a list."""
        return ImageInput(channels=3, batch="list")

    def target(self, position: int) -> dict[str, Any]:
        """Return the boxes of one image and what belongs to each."""
        from torchvision import tv_tensors

        described = self.images[int(self.ids[position])]
        boxes = tv_tensors.BoundingBoxes(
            described.boxes,
            format="XYXY",
            canvas_size=(described.height, described.width),
        )
        return {
            "boxes": boxes,
            "labels": described.labels,
            "area": described.area,
            "iscrowd": described.crowd,
            "image_id": self.ids[position],
        }

    def plain_target(self, target: dict[str, Any]) -> dict[str, Tensor]:
        """Return the target without boxes that an augmentation has moved out of the image."""
        boxes = target["boxes"]
        height, width = boxes.canvas_size
        corners = boxes.as_subclass(Tensor).float().clone()
        corners[:, 0::2].clamp_(0, width)
        corners[:, 1::2].clamp_(0, height)
        keep = ((corners[:, 2:] - corners[:, :2]) >= MIN_SIDE).all(1)
        if self.augment is None:  # then even the smallest box is as it is in the file
            keep = torch.ones_like(keep)
        crowd = target["iscrowd"][keep]
        return {
            "boxes": corners[keep],
            "labels": target["labels"][keep],
            "area": target["area"][keep],
            "iscrowd": crowd,
            "single": (~crowd).nonzero().flatten(),
            "image_id": target["image_id"],
        }

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> BoxSet:
        """Return the samples at these positions, with another augmentation."""
        return BoxSet(self.images, self.ids[positions], augment, seed)

    def collate(self, images: Sequence[Tensor], labels: Sequence[Any]) -> tuple[Any, Any]:
        """Return images and targets as lists, since sizes and numbers of boxes differ."""
        return list(images), list(labels)


class Coco(ImageData):
    """Boxes in COCO's format: `root/annotations/instances_<part>.json` beside `root/<part>/`.

    Labels count from 1 in the order of the categories' ids, as torchvision's detectors want it (0
    is background). Images without boxes are left out of training. Boxes that lie outside of their
    image, or have no extent, are left out, and boxes that reach over the edge are cut. All these
    are counted in one warning. Anything else that is wrong is an error that names file, annotation
    and field. A box without `area`, or with 0, has its own. An annotation that is there twice, with
    the same id, image, category and box, is read once; under two ids it is read twice, and counted.

    Boxes are in pixels of an image as the file says its `width` and `height`: an image with an EXIF
    orientation is put upright if that gives this size, and else left as it is stored, which the
    warning counts.

    Args:
        root: the folder.
        train: name of the training part.
        val: name of the validation part; None cuts it from the training part.
        test: name of the test part; the default is COCO's val2017, which results are reported on.
        validation: share of the training part that is held out for validation.
        augment: True mirrors at random, or a torchvision v2 transform of images and boxes.
        keep_empty: whether to train on images without boxes, too.
        category_ids: True makes the labels the categories' own ids: the 91 of torchvision's COCO
            weights.
    """

    mean = None
    std = None

    def __init__(
        self,
        root: str,
        train: str = "train2017",
        val: str | None = None,
        test: str | None = "val2017",
        validation: float = 0.02,
        augment: bool | nn.Module = True,
        keep_empty: bool = False,
        category_ids: bool = False,
    ) -> None:
        self.root = root
        self.train = train
        self.val = val
        self.test = test
        self.validation = validation
        self.augment = augment
        self.keep_empty = keep_empty
        self.category_ids = category_ids
        self._classes: list[str] | None = None
        self._ids: list[int] | None = None

    @property
    def classes(self) -> list[str]:
        """Names by label; label 0 is the background."""
        if self._classes is None:
            root = require_folder(self.root, type(self).__name__, ADVICE)
            self._classes = read_classes(_instances_file(root, self.train), self.category_ids)
        return self._classes

    def label_ids(self) -> list[int] | None:
        """Return the category id of each label, once the parts are read; 0 is the background."""
        return self._ids

    def raw_splits(self) -> RawSplits:
        """Return the parts that have a file of their own."""
        return read_parts((self.train, self.val, self.test), self._part, _paths, self.root)

    def standard_augmentation(self) -> nn.Module:
        """Mirror half of the images: what detectors are trained with on COCO."""
        return mirror()

    def _part(self, part: str, is_train: bool) -> BoxSet:
        root = require_folder(self.root, type(self).__name__, ADVICE)
        instances = read_instances(_instances_file(root, part), root / part, self.category_ids)
        if self._classes is not None and instances.classes != self._classes:
            raise UserError(
                f"{instances.path} has the categories {instances.classes[1:6]}…, the training part "
                "has others"
            )
        self._classes = instances.classes
        self._ids = instances.ids
        paths = [image.path for image in instances.images]
        check_image_files(paths)
        sizes = [(image.width, image.height) for image in instances.images]
        has_box = [bool((~image.crowd).any()) for image in instances.images]
        if instances.images and not is_train and not any(has_box):
            warnings.warn(
                f"{instances.path} has no box of a single object, so the average precision of that "
                "part is undefined (NaN); check its annotations",
                stacklevel=2,
            )
        keep = [self.keep_empty or not is_train or found for found in has_box]
        counts = instances.skipped
        counts["images without boxes left out of training"] = keep.count(False)
        counts[NOT_UPRIGHT] = num_left_as_stored(paths, sizes)
        warn_counts(instances.path, counts)
        return BoxSet(instances.images, torch.tensor(keep).nonzero().flatten())


def _paths(part: BoxSet) -> list[Path]:
    return [part.images[position].path for position in part.ids.tolist()]


def _instances_file(root: Path, part: str) -> Path:
    """Return the file of a part, and name the parts that there are if it is none of them."""
    folder = root / "annotations"
    path = folder / f"{PREFIX}{part}.json"
    if not is_file(path):
        parts = sorted(found.stem.removeprefix(PREFIX) for found in folder.glob(f"{PREFIX}*.json"))
        raise UserError(
            f"{path} is missing; the parts in {folder} are: {', '.join(parts) or 'none'}; name "
            "them in data.train, data.val and data.test, where val: null cuts a share of the "
            "training part"
        )
    return path

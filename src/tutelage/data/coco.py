"""Images with boxes in COCO's format: folders of images, and one `instances` JSON file for each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data.base import Data, existing
from tutelage.data.coco_file import CocoImage, read_classes, read_instances
from tutelage.data.dense import DenseSet
from tutelage.data.image_folder import decode, refuse_broken
from tutelage.errors import UserError

SMALLEST = 1.0  # of a box that an augmentation has cut, in pixels
ADVICE = "lay it out as root/annotations/instances_<part>.json and root/<part>/*.jpg, and set data.root"


class BoxSet(DenseSet):
    """Images with boxes.

    A target is a dict: `boxes` (n, 4) float32, corners x1, y1, x2, y2 in pixels; `labels` (n,) int64, from 1 on;
    `area` (n,) float32 in pixels and `iscrowd` (n,) bool, as the file has them; `image_id`, an int64 scalar. A batch is
    (list of images, list of targets, ids).

    Args:
        images: what the file says of each.
        positions: which of them, (N,) int64; these are the ids of the items.
        augment, seed: see `ImageSet`.
    """

    def __init__(
        self, images: Sequence[CocoImage], positions: Tensor, augment: nn.Module | None = None, seed: int = 0
    ) -> None:
        super().__init__(torch.zeros(len(positions), dtype=torch.int64), positions, augment, seed)
        self.images = images

    def image(self, position: int) -> Tensor:
        """Decode one image.

        Raises:
            UserError: it cannot be decoded, or has another size than the file says.
        """
        told = self.images[int(self.index[position])]
        image = decode(told.path)
        if (image.shape[1], image.shape[2]) != (told.height, told.width):
            raise UserError(
                f"{told.path} is {image.shape[2]}×{image.shape[1]} pixels, but 'width' and 'height' in {told.source} "
                f"say {told.width}×{told.height}; correct them there, since its boxes are in those pixels"
            )
        return image

    def target(self, position: int) -> dict[str, Any]:
        """Return the boxes of one image and what belongs to each."""
        from torchvision import tv_tensors

        told = self.images[int(self.index[position])]
        size = (told.height, told.width)
        return {
            "boxes": tv_tensors.BoundingBoxes(told.boxes, format="XYXY", canvas_size=size),
            "labels": told.labels,
            "area": told.area,
            "iscrowd": told.crowd,
            "image_id": self.index[position],
        }

    def plain(self, target: dict[str, Any]) -> dict[str, Tensor]:
        """Return the target without boxes that an augmentation has moved out of the image."""
        boxes = target["boxes"]
        height, width = boxes.canvas_size
        corners = boxes.as_subclass(Tensor).float().clone()
        corners[:, 0::2].clamp_(0, width)
        corners[:, 1::2].clamp_(0, height)
        left = ((corners[:, 2:] - corners[:, :2]) >= SMALLEST).all(1)
        if self.augment is None:
            left = torch.ones_like(left)
        kept = {name: target[name][left] for name in ("labels", "area", "iscrowd")}
        return {"boxes": corners[left], **kept, "image_id": target["image_id"]}

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> BoxSet:
        """Return the items at these positions, with another augmentation."""
        return BoxSet(self.images, self.index[positions], augment, seed)

    def joined(self, items: Sequence[Any]) -> Any:
        """Return images and targets as lists: sizes and numbers of boxes differ."""
        images, targets, index = zip(*items, strict=True)
        return list(images), list(targets), torch.stack(index)


class Coco(Data):
    """Boxes in COCO's format: `root/annotations/instances_<part>.json` beside `root/<part>/`.

    Labels count from 1 in the order of the categories' ids, as torchvision's detectors want it (0 is background).
    Images without boxes are left out of training and counted; boxes that lie outside of their image, or have no
    extent, are left out and counted; boxes that reach over the edge are cut and counted. One warning tells the counts.
    Anything else that is wrong is an error that names file, annotation and field.

    Args:
        root: the folder.
        train, val, test: names of the parts; without `val`, validation images are cut from the training part; the
            defaults are COCO's own, whose val2017 is what results are reported on.
        validation: share of the training part that is kept for choosing.
        augment: True mirrors at random, or a torchvision v2 transform of images and boxes.
        keep_empty: train on images without boxes, too.
        category_ids: True makes the labels the categories' own ids: the 91 of torchvision's COCO weights.
    """

    mean, std = None, None

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
        self.root, self.train, self.val, self.test, self.validation = root, train, val, test, validation
        self.augment, self.keep_empty, self.category_ids = augment, keep_empty, category_ids
        self._classes: list[str] | None = None

    @property
    def classes(self) -> list[str]:
        """Names by label; label 0 is the background."""
        if self._classes is None:
            root = existing(self.root, type(self).__name__, ADVICE)
            self._classes = read_classes(_instances(root, self.train), self.category_ids)
        return self._classes

    def parts(self) -> tuple[BoxSet, BoxSet | None, BoxSet | None]:
        """Return the parts that have a file of their own."""
        train = self._part(self.train, self.keep_empty)
        validation, test = (None if name is None else self._part(name, True) for name in (self.val, self.test))
        return train, validation, test

    def _part(self, name: str, keep_empty: bool) -> BoxSet:
        root = existing(self.root, type(self).__name__, ADVICE)
        found = read_instances(_instances(root, name), root / name, self.category_ids)
        if self._classes is not None and found.classes != self._classes:
            raise UserError(f"{found.path} has the categories {found.classes[1:6]}…, the training part has others")
        self._classes = found.classes
        refuse_broken([image.path for image in found.images])
        with_boxes = torch.tensor([keep_empty or bool((~image.crowd).any()) for image in found.images])
        counts = dict(found.skipped)
        if not with_boxes.all():
            counts["images without boxes left out of training"] = int((~with_boxes).sum())
        if counts:
            warnings.warn(f"{found.path}: " + ", ".join(f"{n} {what}" for what, n in counts.items()), stacklevel=4)
        return BoxSet(found.images, with_boxes.nonzero().flatten())

    def standard_augmentation(self) -> nn.Module:
        """Mirror half of the images: what detectors are trained with on COCO."""
        from torchvision.transforms import v2

        flip: nn.Module = v2.RandomHorizontalFlip()
        return flip


def _instances(root: Path, part: str) -> Path:
    return root / "annotations" / f"instances_{part}.json"

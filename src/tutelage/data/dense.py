"""Images whose targets have a place in the image, boxes or masks: what moves the one moves the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from tutelage.data.image_set import ImageSet, Key, to_float


class DenseSet(ImageSet):
    """A part of a data set for detection or segmentation.

    An item is `(image, target, index)`: float32 (3, H, W) in [0, 1], what `target` gives, and the id of the sample. An
    augmentation takes image and target together, as torchvision's v2 transforms do with `tv_tensors`.
    `labels` (N,) int64 only says how items are cut into parts, and is 0 for all where nothing does.
    """

    @abstractmethod
    def target(self, position: int) -> Any:
        """Return what belongs to an image, its places as `tv_tensors` (`BoundingBoxes`, `Mask`)."""

    @abstractmethod
    def plain(self, target: Any) -> Any:
        """Return a target, maybe augmented, as plain tensors, without what has left the image."""

    def __getitem__(self, key: Key) -> Any:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        image, target = self.image(position), self.target(position)
        if self.augment is not None:
            from torchvision import tv_tensors

            image, target = self._augmented(epoch, int(self.index[position]), tv_tensors.Image(image), target)
        return to_float(image), self.plain(target), self.index[position]

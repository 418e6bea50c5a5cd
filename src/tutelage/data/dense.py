"""Images with boxes or masks, which an augmentation moves together with the image."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from tutelage.data.image_set import ImageSet, to_float
from tutelage.data.transforms.base import BatchTransform
from tutelage.errors import UserError


class DenseSet(ImageSet):
    """A part of a data set for detection or segmentation.

    The label of a sample is what `plain_target` gives. An augmentation takes image and target
    together, as torchvision's v2 transforms do with `tv_tensors`. The attribute `labels` (N,) int64
    only says how samples are cut into parts, and is 0 for all by default.
    """

    @abstractmethod
    def target(self, position: int) -> Any:
        """Return the boxes or the mask of an image as `tv_tensors` (`BoundingBoxes`, `Mask`)."""

    @abstractmethod
    def plain_target(self, target: Any) -> Any:
        """Return a target, maybe augmented, as plain tensors, without what has left the image."""

    def sample(self, epoch: int, position: int) -> tuple[Tensor, Any]:
        """Return image and target of one sample, augmented.

        Raises:
            UserError: If the augmentation would leave boxes or masks behind.
        """
        image = self.image(position)
        target = self.target(position)
        if isinstance(self.augment, BatchTransform):
            raise UserError(
                f"data.augment is a {type(self.augment).__name__} of tutelage.data.transforms, "
                "which moves no boxes or masks; take a transform of torchvision.transforms.v2"
            )
        if self.augment is not None:
            from torchvision import tv_tensors

            image, target = self._augmented(epoch, position, tv_tensors.Image(image), target)
        return to_float(image), self.plain_target(target)

"""Images with masks in memory, all of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.data.dense import DenseSet
from tutelage.data.image_input import ImageInput
from tutelage.data.masks import MaskSet, mask_labels
from tutelage.data.samples import Key
from tutelage.errors import UserError


class MaskArray(DenseSet):
    """Images with masks in memory.

    A batch has `inputs` (N, 3, H, W) and `labels` (N, H, W) int64, -100 where a pixel has no class.

    Args:
        images: (N, 3, H, W) uint8.
        masks: (N, H, W) uint8, 255 for no class.
        ids: (N,) int64.
        augment: a torchvision v2 transform, or None; it takes the mask as uint8, 255 for no class.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        masks: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(torch.zeros(len(ids), dtype=torch.int64), ids, augment, seed)
        self.images = images
        self.masks = masks

    def image(self, position: int) -> Tensor:
        """Return one image as it is stored."""
        return self.images[position]

    def input_rule(self) -> ImageInput:
        """Return that an image is resized to the size of these; see `resized_masks`."""
        channels, height, width = self.images.shape[1:]
        return ImageInput(channels, (height, width), "stretch")

    def target(self, position: int) -> Any:
        """Return one mask as it is stored."""
        from torchvision import tv_tensors

        return tv_tensors.Mask(self.masks[position])

    def plain_target(self, target: Any) -> Tensor:
        """Return the mask as int64, -100 for no class."""
        return mask_labels(target.as_subclass(Tensor))

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> MaskArray:
        """Return the samples at these positions, with another augmentation."""
        return MaskArray(
            images=self.images[positions],
            masks=self.masks[positions],
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return the samples with these keys; without augmentation images are uint8."""
        if self.augment is not None:
            return super().load(keys)
        positions = [position for _, position in keys]
        labels = mask_labels(self.masks[positions])
        return self._with_ids(keys, self.images[positions], labels)


def resized_masks(masks: MaskSet, size: tuple[int, int]) -> MaskArray:
    """Decode images with masks once, and return them in one size, in memory.

    Images are resized with antialiasing; of masks the nearest pixel is taken.

    Args:
        masks: without augmentation.
        size: height and width in pixels; a sample takes four bytes a pixel.

    Raises:
        UserError: If there is not so much memory.
    """
    from torchvision.transforms.v2 import functional
    from torchvision.transforms.v2.functional import InterpolationMode

    try:
        images = torch.empty(len(masks), 3, *size, dtype=torch.uint8)
        classes = torch.empty(len(masks), *size, dtype=torch.uint8)
    except RuntimeError as error:
        gigabytes = 4 * len(masks) * size[0] * size[1] / 1e9
        raise UserError(
            f"{len(masks)} images of {size[0]}×{size[1]} pixels take {gigabytes:.0f} GB of memory, "
            "which cannot be had; make data.size smaller"
        ) from error
    for position in range(len(masks)):
        target = masks.target(position).as_subclass(Tensor)
        nearest = InterpolationMode.NEAREST_EXACT
        images[position] = functional.resize(masks.image(position), list(size), antialias=True)
        classes[position] = functional.resize(target[None], list(size), nearest)[0]
    return MaskArray(images, classes, masks.ids)

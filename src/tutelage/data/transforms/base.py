"""What an augmentation of whole batches is, and several of them in a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.data.transforms.draws import Draws
from tutelage.errors import UserError


class BatchTransform(nn.Module, ABC):
    """An augmentation of whole batches of images, on the device of the batch.

    What happens to an image depends on its own draws alone, not on the other images of the batch.
    """

    @abstractmethod
    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return augmented images.

        Args:
            images: (N, C, H, W), uint8, or float32 in [0, 1].
            draws: of the N samples.

        Returns:
            (N, C, H', W') of the same dtype, on the same device.
        """


class Compose(BatchTransform):
    """Several augmentations, one after another, each with draws of its own.

    >>> from tutelage.data.transforms import RandomHorizontalFlip, RandomResizedCrop
    >>> crop_and_flip = Compose([RandomResizedCrop(8), RandomHorizontalFlip()])
    >>> draws = Draws(torch.tensor([1, 1]), torch.tensor([0, 1]))
    >>> crop_and_flip(torch.zeros(2, 3, 12, 16, dtype=torch.uint8), draws).shape
    torch.Size([2, 3, 8, 8])

    Args:
        steps: the augmentations.

    Raises:
        UserError: If one of them is none of whole batches.
    """

    def __init__(self, steps: Sequence[BatchTransform]) -> None:
        super().__init__()
        for step in steps:
            if not isinstance(step, BatchTransform):
                raise UserError(
                    "the steps of Compose are augmentations of tutelage.data.transforms, got "
                    f"{type(step).__name__}; compose those of torchvision by "
                    "torchvision.transforms.v2.Compose"
                )
        self.steps = list(steps)

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return images after all steps."""
        return self.from_step(0, images, draws)

    def from_step(self, first: int, images: Tensor, draws: Draws) -> Tensor:
        """Return images after the steps from this one on; those before it are done."""
        for number in range(first, len(self.steps)):
            images = self.steps[number](images, draws.within(number))
        return images

    def extra_repr(self) -> str:
        """Say which steps there are."""
        return ", ".join(map(repr, self.steps))


def per_sample(values: Tensor, images: Tensor) -> Tensor:
    """Return one value per sample (N,) in the shape (N, 1, 1, 1), on the images' device."""
    return values.to(images.device, non_blocking=True).view(-1, 1, 1, 1)


def to_unit(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1]."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def from_unit(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images in [0, 1] in a dtype; for uint8 they are rounded."""
    if dtype == torch.uint8:
        return images.mul(255).round_().clamp_(0, 255).to(dtype)
    return images.to(dtype)

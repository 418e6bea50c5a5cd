"""Images with labels and stable ids; augmentation is a pure function of seed, epoch and sample.

A sample's random crop depends on (seed, epoch, id) alone: not on the number of workers, and not on
what was drawn before it. A run that resumes sees the same pixels, and a teacher's outputs can be
stored under (id, view). A `BatchTransform` draws for a whole batch at once; any other transform is
called sample by sample, with torch's generator seeded for each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.data.image_input import ImageInput
from tutelage.data.samples import Key, Samples
from tutelage.data.transforms.base import BatchTransform
from tutelage.data.transforms.draws import Draws
from tutelage.errors import UserError

PRIME = 1_000_003  # keeps (seed, epoch, id) apart as long as epoch and id are smaller


class ImageSet(Samples, ABC):
    """A part of an image data set.

    A batch has the fields `inputs` (N, C, H, W) float32 in [0, 1], `labels` (N,) int64, `ids` (N,)
    int64 and `views` (N,) int64, see `view_number`. Where an item has several labels they are
    (N, num_classes) float32 of 0 and 1.

    Args:
        labels: (N,) int64, or (N, num_classes) float32 of 0 and 1.
        ids: (N,) int64, the number of each sample in its original part.
        augment: a `BatchTransform`, a torchvision v2 transform, or None.
        seed: of the augmentation.
    """

    def __init__(
        self, labels: Tensor, ids: Tensor, augment: nn.Module | None = None, seed: int = 0
    ) -> None:
        self.labels = labels
        self.ids = ids
        self.augment = augment
        self.seed = seed

    @abstractmethod
    def image(self, position: int) -> Tensor:
        """Return one image without augmentation, uint8 or float32 in [0, 1], (C, H, W)."""

    @abstractmethod
    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ImageSet:
        """Return the samples at these positions, with another augmentation."""

    def input_rule(self) -> ImageInput:
        """Return how an image from outside becomes an input like these; default: as it is."""
        return ImageInput(channels=int(self.image(0).shape[0]))

    def subset(self, positions: Sequence[int] | Tensor) -> ImageSet:
        """Return the samples at these positions, augmented as here."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return self.subset_with(chosen, self.augment, self.seed)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples with these keys as one batch."""
        return self.finish(self.load(keys), "cpu")

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return the samples before whole batches are augmented; images may still be uint8."""
        samples = [self.sample(epoch, position) for epoch, position in keys]
        inputs, labels = self.collate([s[0] for s in samples], [s[1] for s in samples])
        return self._with_ids(keys, inputs, labels)

    def finish(self, loaded: Batch, device: torch.device | str) -> Batch:
        """Return the batch on a device, augmented there, float32 in [0, 1]."""
        batch = loaded.to(device, non_blocking=True)
        images = batch.inputs
        if isinstance(self.augment, BatchTransform):
            # The numbers are drawn on the CPU: no device waits for another, and all draw the same.
            images = self.augment_batch(self.augment, images, Draws(loaded.views, loaded.ids))
        if isinstance(images, Tensor):
            images = to_float(images)
        return batch.with_fields({"inputs": images})

    def augment_batch(self, augment: BatchTransform, images: Tensor, draws: Draws) -> Tensor:
        """Return images (N, C, H, W) as `load` gave them, augmented."""
        return augment(images, draws)  # type: ignore[no-any-return]

    def sample(self, epoch: int, position: int) -> tuple[Tensor, Any]:
        """Return image (C, H, W) and label of one sample, uint8, or float32 in [0, 1].

        The image is augmented unless that is done for whole batches.
        """
        image = self.image(position)
        if self.augment is not None and not isinstance(self.augment, BatchTransform):
            image = self._augmented(epoch, position, image)
        return image, self.labels[position]

    def collate(self, images: Sequence[Tensor], labels: Sequence[Any]) -> tuple[Any, Any]:
        """Return images and labels of several samples as the fields `inputs` and `labels`."""
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) > 1:
            raise UserError(
                f"images of one batch have the shapes {shapes[0]} and {shapes[1]}; let "
                "data.augment crop or resize them"
            )
        return torch.stack(list(images)), torch.stack(list(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def _with_ids(self, keys: Sequence[Key], inputs: Any, labels: Any) -> Batch:
        """Return a batch that says which samples it holds, and in which view."""
        views = [0 if self.augment is None else view_number(self.seed, epoch) for epoch, _ in keys]
        return Batch(
            {
                "inputs": inputs,
                "labels": labels,
                "ids": self.ids[[position for _, position in keys]],
                "views": torch.tensor(views, dtype=torch.int64),
            }
        )

    def _augmented(self, epoch: int, position: int, *sample: Any) -> Any:
        """Return the augmented sample; the state of torch's generator is left as it was."""
        assert self.augment is not None
        state = torch.get_rng_state()
        # Of the CPU alone: torch.manual_seed takes longer, and seeds accelerators too.
        torch.default_generator.manual_seed(self._sample_seed(epoch, position))
        result = self.augment(*sample)
        torch.set_rng_state(state)
        return result

    def _sample_seed(self, epoch: int, position: int) -> int:
        number = (self.seed * PRIME + epoch) * PRIME + int(self.ids[position])
        return number % 2**63


class ArraySet(ImageSet):
    """Images in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        ids: (N,) int64; None counts from 0.
        augment: a `BatchTransform`, a torchvision v2 transform, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        ids = torch.arange(len(labels)) if ids is None else ids
        super().__init__(labels, ids, augment, seed)
        self.images = images

    def image(self, position: int) -> Tensor:
        """Return one image as it is stored."""
        return self.images[position]

    def input_rule(self) -> ImageInput:
        """Return that the center of an image, resized to the size of these, is taken."""
        channels, height, width = self.images.shape[1:]
        return ImageInput(channels, (height, width), "center-crop")

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ArraySet:
        """Return the samples at these positions, with another augmentation."""
        return ArraySet(
            images=self.images[positions],
            labels=self.labels[positions],
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return the samples before whole batches are augmented, uint8."""
        if self.augment is not None and not isinstance(self.augment, BatchTransform):
            return super().load(keys)
        positions = torch.tensor([position for _, position in keys], dtype=torch.int64)
        return self._with_ids(keys, self.images[positions], self.labels[positions])


def view_number(seed: int, epoch: int) -> int:
    """Return the number of the augmentation of an epoch, which is never 0.

    Pairs of seed and epoch that have the same number augment alike.

    >>> view_number(0, 0), view_number(0, 3), view_number(1, 3)
    (1, 4, 1000007)
    """
    return 1 + (seed * PRIME + epoch) % (2**63 - 1)


def to_float(image: Tensor) -> Tensor:
    """Return float32 in [0, 1]; uint8 is divided by 255."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image.float()

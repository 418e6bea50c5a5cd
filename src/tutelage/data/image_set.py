"""Images with labels and stable ids; augmentation is a pure function of seed, epoch and sample.

A sample's random crop depends on (seed, epoch, index) alone: not on the number of workers, not on what was drawn
before it, so a run that resumes sees the same pixels, and a teacher's outputs can be stored per epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tutelage.errors import UserError

Key = int | tuple[int, int]
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Stream:
    """A run of items of a set that has its own share of every training batch, and its own passes.

    Attributes:
        name: for messages.
        first, size: where the items lie.
        share: items in a batch per item of `train.batch_size`.
    """

    name: str
    first: int
    size: int
    share: float


class ImageSet(Dataset[Any], ABC):
    """A part of a data set.

    An item is `(image, label, index)`: float32 (C, H, W) in [0, 1], int64, and the int64 id of the sample in its
    original part. A key is a position, or `(epoch, position)`; the epoch decides the augmentation.

    Args:
        labels: (N,) int64.
        index: (N,) int64 ids.
        augment: a torchvision v2 transform, or None.
        seed: of the augmentation.

    Attributes:
        streams: what joins every training batch, from the end of the set; an epoch is one pass over the items before.
    """

    streams: Sequence[Stream] = ()

    def __init__(self, labels: Tensor, index: Tensor, augment: nn.Module | None = None, seed: int = 0) -> None:
        self.labels, self.index, self.augment, self.seed = labels, index, augment, seed

    def beside(self, shares: Mapping[str, float]) -> ImageSet:
        """Return this set with unlabelled images beside it, so many per labelled one from each pool that it knows.

        Raises:
            UserError: it knows no pool.
        """
        raise UserError(
            f"the training data knows no unlabelled images {list(shares)}; let it be a tutelage.data.OpenSet (around "
            "Resized, not in it), and give shares in one place"
        )

    @abstractmethod
    def image(self, position: int) -> Tensor:
        """Return one image without augmentation, uint8 or float32 in [0, 1], (C, H, W)."""

    @abstractmethod
    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ImageSet:
        """Return the items at these positions, with another augmentation."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Any:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        image = self.image(position)
        if self.augment is not None:
            image = self._augmented(epoch, int(self.index[position]), image)
        return to_float(image), self.labels[position], self.index[position]

    def __getitems__(self, keys: Sequence[Key]) -> Any:
        """Return a whole batch, already joined; give `collate` to the DataLoader."""
        return self.joined([self[key] for key in keys])

    def joined(self, items: Sequence[Any]) -> Any:
        """Return items as one batch."""
        images, labels, index = zip(*items, strict=True)
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) > 1:
            raise UserError(
                f"images of one batch have the shapes {shapes[0]} and {shapes[1]}; let data.augment crop or resize them"
            )
        return torch.stack(images), torch.stack(labels), torch.stack(index)

    def _augmented(self, epoch: int, index: int, *sample: Any) -> Any:
        assert self.augment is not None
        state = torch.get_rng_state()
        torch.manual_seed(((self.seed * 1_000_003 + epoch) * 1_000_003 + index) % 2**63)
        result = self.augment(*sample)
        torch.set_rng_state(state)
        return result


class ArraySet(ImageSet):
    """Images in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels, index, augment, seed: see `ImageSet`; `index` None counts from 0.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor | None = None,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(labels, torch.arange(len(labels)) if index is None else index, augment, seed)
        self.images = images

    def image(self, position: int) -> Tensor:
        """Return one image as it is stored."""
        return self.images[position]

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> ArraySet:
        """Return the items at these positions, with another augmentation."""
        return ArraySet(self.images[positions], self.labels[positions], self.index[positions], augment, seed)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return a whole batch; without augmentation by one indexing of the array."""
        if self.augment is not None:
            batch: Batch = super().__getitems__(keys)
            return batch
        positions = torch.tensor([key[1] if isinstance(key, tuple) else key for key in keys])
        return to_float(self.images[positions]), self.labels[positions], self.index[positions]


def to_float(image: Tensor) -> Tensor:
    """Return float32 in [0, 1]; uint8 is divided by 255."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image.float()


def collate(batch: Any) -> Any:
    """Hand over what `__getitems__` stacked."""
    return batch

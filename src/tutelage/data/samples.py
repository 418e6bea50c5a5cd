"""The samples of one part of a data set: the only data type that the engine knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tutelage.core.batch import Batch
from tutelage.errors import UserError

Key = tuple[int, int]
"""(epoch, position): which sample, and in which epoch. The epoch decides the augmentation."""


@dataclass(frozen=True)
class Stream:
    """A range of samples that joins every training batch and has passes of its own.

    Attributes:
        name: of the stream, for messages.
        first: position of its first sample.
        size: number of its samples.
        share: how many of its samples a batch holds per sample of `train.batch_size`.
    """

    name: str
    first: int
    size: int
    share: float


class Samples(Dataset[Batch], ABC):
    """The samples of one part of a data set.

    A `DataLoader` over it takes `collate_fn=collate`, because `batch` joins the samples itself.

    Attributes:
        streams: the samples at the end that join every training batch. An epoch is one pass over
            the samples before them.
    """

    streams: Sequence[Stream] = ()

    @property
    def reads_files(self) -> bool:
        """Whether a batch is read from files, so that loading processes are worth their start."""
        return False

    @property
    def files_digest(self) -> str | None:
        """What changes with the name, size or time of a file that is read; None if that is unknown.

        By default it is.
        """
        return None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples, those of the streams included."""

    @abstractmethod
    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples with these keys as one batch."""

    def before_loading(self) -> None:
        """Make ready what loading processes share; called before they are started.

        By default there is nothing to do.
        """
        return None

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return what `finish` makes a batch of; by default that is the batch.

        A training run on an accelerator loads in its loading processes and finishes on the
        accelerator, so that images travel as bytes and are augmented where that is fast.
        `finish(load(keys), "cpu")` is `batch(keys)`.
        """
        return self.batch(keys)

    def finish(self, loaded: Batch, device: torch.device | str) -> Batch:
        """Return the batch on a device.

        Args:
            loaded: what `load` gave, on the CPU.
            device: where the batch is used.
        """
        return loaded.to(device, non_blocking=True)

    @abstractmethod
    def subset(self, positions: Sequence[int] | Tensor) -> Samples:
        """Return the samples at these positions, augmented as here."""

    def with_streams(self, shares: Mapping[str, float]) -> Samples:
        """Return these samples and unlabeled ones, which join every batch.

        Args:
            shares: pool of unlabeled samples -> how many of them a batch holds per labeled one.

        Raises:
            UserError: If there is no such pool; by default there is none.
        """
        raise UserError(
            f"the training data knows no unlabeled samples {list(shares)}; let it be a "
            "tutelage.data.OpenSet (around Resized, not in it), and give shares in one place"
        )

    def __getitem__(self, key: Key | int) -> Batch:
        """Return a batch of one; a position alone is a sample of epoch 0."""
        return self.batch([_key(key)])

    def __getitems__(self, keys: Sequence[Key | int]) -> Batch:
        """Return a batch; called by `DataLoader`."""
        return self.batch([_key(key) for key in keys])


def collate(batch: Any) -> Any:
    """Return the batch as it is: the `collate_fn` of a `DataLoader` over `Samples`."""
    return batch


def _key(key: Key | int) -> Key:
    return key if isinstance(key, tuple) else (0, int(key))

"""Samples whose augmentations repeat after some epochs, so that a teacher's outputs can be stored.

A sample's augmentation depends on seed, epoch and id alone. With the epoch taken modulo E, there
are E views of each sample, and epoch E sees those of epoch 0 again. The order of the samples is not
touched: it is the sampler's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.data.samples import Key, Samples


class SamplesUnderKeys(Samples, ABC):
    """Samples that are asked for under other keys.

    Args:
        samples: any.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    @property
    def reads_files(self) -> bool:
        """Whether a batch is read from files."""
        return self.samples.reads_files

    @abstractmethod
    def keys_of(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Return the keys of the samples within."""

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples as one batch."""
        return self.samples.batch(self.keys_of(keys))

    @property
    def files_digest(self) -> str | None:
        """What changes with a file that is read."""
        return self.samples.files_digest

    def before_loading(self) -> None:
        """Make ready what loading processes share."""
        self.samples.before_loading()

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return what `finish` makes a batch of."""
        return self.samples.load(self.keys_of(keys))

    def finish(self, loaded: Batch, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return self.samples.finish(loaded, device)


class RepeatedViews(SamplesUnderKeys):
    """Samples in the augmentations of their first epochs, again and again.

    Args:
        samples: any; their streams' passes repeat as well.
        count: E, the number of views.
    """

    def __init__(self, samples: Samples, count: int) -> None:
        super().__init__(samples)
        self.count = count
        self.streams = samples.streams

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def keys_of(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Return the keys in one of the first epochs."""
        return [(epoch % self.count, position) for epoch, position in keys]

    def subset(self, positions: Sequence[int] | Tensor) -> RepeatedViews:
        """Return the samples at these positions, whose views repeat as well."""
        return RepeatedViews(self.samples.subset(positions), self.count)


class KeyedSamples(SamplesUnderKeys):
    """Samples of any epochs as a set of its own, in the order of their keys.

    Args:
        samples: any.
        keys: (epoch, position) of each.
    """

    def __init__(self, samples: Samples, keys: Sequence[Key]) -> None:
        super().__init__(samples)
        self.keys = keys

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    def keys_of(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Return the keys that stand at these positions; the epoch does not matter."""
        return [self.keys[position] for _, position in keys]

    def subset(self, positions: Sequence[int] | Tensor) -> KeyedSamples:
        """Return the samples at these positions."""
        return KeyedSamples(self.samples, [self.keys[int(position)] for position in positions])

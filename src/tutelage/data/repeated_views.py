"""Samples whose augmentations repeat after some epochs, so that a teacher's outputs can be stored.

A sample's augmentation depends on seed, epoch and id alone. With the epoch taken modulo E, there
are E views of each sample, and epoch E sees those of epoch 0 again. The order of the samples is not
touched: it is the sampler's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.data.samples import Key, Samples


class RepeatedViews(Samples):
    """Samples in the augmentations of their first epochs, again and again.

    Args:
        samples: any; their streams' passes repeat as well.
        count: E, the number of views.
    """

    def __init__(self, samples: Samples, count: int) -> None:
        self.samples = samples
        self.count = count
        self.streams = samples.streams

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples with these keys, augmented as in one of the first epochs."""
        return self.samples.batch([(epoch % self.count, position) for epoch, position in keys])

    def subset(self, positions: Sequence[int] | Tensor) -> RepeatedViews:
        """Return the samples at these positions, whose views repeat as well."""
        return RepeatedViews(self.samples.subset(positions), self.count)


class KeyedSamples(Samples):
    """Samples of any epochs as a set of its own, in the order of their keys.

    Args:
        samples: any.
        keys: (epoch, position) of each.
    """

    def __init__(self, samples: Samples, keys: Sequence[Key]) -> None:
        self.samples = samples
        self.keys = keys

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples whose keys stand at these positions; the epoch does not matter."""
        return self.samples.batch([self.keys[position] for _, position in keys])

    def subset(self, positions: Sequence[int] | Tensor) -> KeyedSamples:
        """Return the samples at these positions."""
        return KeyedSamples(self.samples, [self.keys[int(position)] for position in positions])

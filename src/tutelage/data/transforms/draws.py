"""Random numbers that are a function of seed, epoch and sample, for a whole batch at once.

A generator has a state, so a sample's numbers would depend on what was drawn before it, or it would
have to be seeded anew for every sample. Here they come from a counter instead (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011): number k of a sample is a hash of its view,
its id and k. The hash is the output function of SplitMix64 (Steele et al., OOPSLA 2014), once for
each of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the increment of SplitMix64
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Draws:
    """The random numbers of the samples of a batch.

    >>> draws = Draws(torch.tensor([1, 1]), torch.tensor([7, 8]))
    >>> draws.uniform(3).shape
    torch.Size([2, 3])
    >>> alone = Draws(torch.tensor([1]), torch.tensor([8]))
    >>> torch.equal(draws.uniform(3)[1], alone.uniform(3)[0])
    True

    Args:
        views: (N,) int64, each stands for a seed and an epoch, see `view_number`; on the CPU.
        ids: (N,) int64, the number of each sample; on the CPU.
    """

    def __init__(self, views: Tensor, ids: Tensor) -> None:
        view_keys = _mix(views.numpy().astype(np.uint64) + _GOLDEN)
        self._keys = _mix(view_keys + ids.numpy().astype(np.uint64) * _GOLDEN)

    def __len__(self) -> int:
        return len(self._keys)

    def uniform(self, count: int) -> Tensor:
        """Return the first numbers of every sample, (N, count) float64 in [0, 1), on the CPU.

        They are the same at every call; `within` gives others.
        """
        counter = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(self._keys[:, None] + counter)
        # The upper 53 bits are what a float64 holds.
        return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def integers(self, high: int) -> Tensor:
        """Return one whole number per sample, (N,) int64 in [0, high), on the CPU."""
        return (self.uniform(1)[:, 0] * high).long()

    def within(self, number: int) -> Draws:
        """Return further draws of the same samples, such as those of the step of that number."""
        draws = Draws.__new__(Draws)
        # Not the counter's increment, so that the two never meet.
        step = np.array([number + 1], dtype=np.uint64) * _FIRST
        draws._keys = _mix(self._keys ^ step)
        return draws


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the values scrambled: each bit of the result depends on all bits of a value."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))

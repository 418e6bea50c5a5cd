"""Sums of running metrics over batches and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tutelage.core.distributed import is_distributed, sum_over_ranks


class RunningSums:
    """Named sums over batches, on the device of what is added, and their totals over all ranks.

    They are float64, in which counts stay exact up to 2^53; Apple's devices have float32 alone.

    >>> sums = RunningSums({"right": (), "by_class": (2,)})
    >>> sums.add({"right": torch.tensor(3), "by_class": torch.tensor([1, 2])})
    >>> sums.add({"right": torch.tensor(1)})
    >>> {name: total.tolist() for name, total in sums.totals().items()}
    {'right': 4.0, 'by_class': [1.0, 2.0]}

    Args:
        shapes: of every sum by name. All of them are known from the start, so that a rank to which
            nothing was added takes part in the totals.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self._sums = {
            name: torch.zeros(tuple(shape), dtype=torch.float64) for name, shape in shapes.items()
        }

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add values of the shapes of their sums; an accelerator does not wait."""
        for name, value in values.items():
            total = self._sums[name]
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            if total.device != value.device:
                total = total.to(value.device, dtype)
            self._sums[name] = total + value.detach().to(dtype)

    def totals(self) -> dict[str, Tensor]:
        """Return the sums over all ranks, float64 on the CPU; every rank has to ask."""
        parts = [total.flatten().cpu().double() for total in self._sums.values()]
        joined = torch.cat(parts)
        if is_distributed():
            joined = sum_over_ranks(joined)
        pieces = torch.split(joined, [len(part) for part in parts])
        return {
            name: piece.view(self._sums[name].shape)
            for name, piece in zip(self._sums, pieces, strict=True)
        }

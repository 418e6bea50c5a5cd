"""Data loading whose order is a pure function of seed, epoch and position, so that a resumed run repeats it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from tutelage.data import ImageSet, Stream, collate
from tutelage.errors import UserError

Key = tuple[int, int]


class EpochSampler(Sampler[list[Key]]):
    """Batches of `(epoch, position)` keys.

    The batch size is that of all ranks together, and rank r of w takes every w-th item of each batch, so two ranks
    of 32 see what one rank of 64 sees. A last batch that is not full is left out of training, unless it is the only
    one; it is then cut so that every rank has as many items.

    Args:
        size: number of items; with streams, of the main ones, which an epoch passes over once.
        batch_size: of the main items.
        seed: of every order.
        rank, world: which process of how many.
        streams: further items that join every batch; each is passed over again and again, whatever the epoch.

    Attributes:
        epoch: the epoch to draw; set it before iterating.
        start: the first batch of that epoch to give, for a run that resumes in mid-epoch.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world: int = 1, streams: Sequence[Stream] = ()
    ) -> None:
        if batch_size % world:
            raise UserError(f"train.batch_size {batch_size} does not divide among {world} processes; choose a multiple")
        if size < world:
            raise UserError(f"{size} training images cannot be shared by {world} processes; use fewer")
        self.batch_size = min(batch_size, size - size % world)
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.streams = [(stream, _count(stream, self.batch_size, world)) for stream in streams]
        self.epoch, self.start = 0, 0

    @classmethod
    def over(cls, data: ImageSet, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> EpochSampler:
        """Return a sampler of a set with the streams that it has."""
        main = len(data) - sum(stream.size for stream in data.streams)
        return cls(main, batch_size, seed, rank, world, data.streams)

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()
        for batch in range(self.start, len(self)):
            items = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            keys = [(self.epoch, i) for i in items[self.rank :: self.world]]
            for stream, count in self.streams:
                joining = _in_passes(stream, count, self.epoch * len(self) + batch, self.seed)
                keys += joining[self.rank :: self.world]
            yield keys


def _count(stream: Stream, batch_size: int, world: int) -> int:
    """Return how many items of a stream join a batch."""
    count = round(stream.share * batch_size)
    if not 1 <= count <= stream.size or count % world:
        raise UserError(
            f"a batch of {batch_size} takes {count} unlabelled images from {stream.name!r}, which has {stream.size}, "
            f"for {world} process(es); choose another share of it (now {stream.share:g} per labelled image)"
        )
    return count


def _in_passes(stream: Stream, count: int, batch: int, seed: int) -> list[Key]:
    """Return what the run's batch of that number takes from endless passes; a key's epoch is the pass."""
    keys: list[Key] = []
    while len(keys) < count:
        which, done = divmod(batch * count + len(keys), stream.size)
        generator = torch.Generator().manual_seed(((seed * 1_000_003 + which) * 1_000_003 + stream.first) % 2**63)
        order = torch.randperm(stream.size, generator=generator)[done : done + count - len(keys)]
        keys += [(which, stream.first + i) for i in order.tolist()]
    return keys


def training_loader(data: ImageSet, sampler: EpochSampler, workers: int) -> DataLoader[object]:
    """Return a loader of training batches in the sampler's order."""
    return _loader(data, sampler, workers)


def evaluation_loader(
    data: ImageSet, batch_size: int, workers: int, rank: int = 0, world: int = 1
) -> DataLoader[object]:
    """Return a loader over every item exactly once, shared out among ranks, nothing padded and nothing dropped."""
    mine = list(range(len(data)))[rank::world]
    batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    return _loader(data, batches, workers)


def _loader(data: ImageSet, batches: Iterable[list[Any]], workers: int) -> DataLoader[object]:
    return DataLoader(
        data,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # its own: starting to iterate would draw from the global one, also on resume
    )

"""Data loading in an order that depends only on seed, epoch and position.

A run that resumes, or that has another number of workers, therefore sees the same batches.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tutelage.core import Batch
from tutelage.data.samples import Key, Samples, Stream, collate
from tutelage.engine.interrupt import SIGNALS
from tutelage.errors import UserError

GRACE_SECONDS = 30.0  # for the step that is under way at SIGTERM; Slurm waits as long
MAX_WORKERS = 8  # loading processes that a run starts unless the recipe says how many
MIN_FILES = 1000  # for fewer, a process takes longer to start than it saves
PRIME = 1_000_003  # spreads seeds and epochs over the generator's seeds


class EpochSampler(Sampler[list[Key]]):
    """Batches of `(epoch, position)` keys.

    The batch size is that of all ranks together, and rank r of w takes every w-th item of each
    batch, so two ranks of 32 see what one rank of 64 sees. A last batch that is not full is left
    out, unless it is the only one; it is then cut so that every rank has as many items.

    Args:
        size: number of items; with streams, of the main ones, which an epoch passes over once.
        batch_size: main items in a batch of all ranks.
        seed: of every order.
        rank: of this process.
        world: number of processes.
        streams: further items that join every batch, each passed over again and again.

    Attributes:
        epoch: the epoch to draw; set it before iterating.
        start: the first batch to give, for a run that resumes within an epoch.

    Raises:
        UserError: If the items or a batch cannot be shared evenly by the ranks.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        streams: Sequence[Stream] = (),
    ) -> None:
        if batch_size % world:
            raise UserError(
                f"train.batch_size {batch_size} does not divide among {world} processes; "
                "choose a multiple"
            )
        if size < world:
            raise UserError(
                f"{size} training samples cannot be shared by {world} processes; use fewer"
            )
        self.batch_size = min(batch_size, size - size % world)
        self.size = size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.streams = [
            _StreamOrder(stream, _share(stream, self.batch_size, world), seed) for stream in streams
        ]
        self.epoch = 0
        self.start = 0

    @classmethod
    def over(
        cls, samples: Samples, batch_size: int, seed: int, *, rank: int = 0, world: int = 1
    ) -> EpochSampler:
        """Return a sampler of a set and the streams that it has."""
        main = len(samples) - sum(stream.size for stream in samples.streams)
        return cls(main, batch_size, seed, rank=rank, world=world, streams=samples.streams)

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(self.seed * PRIME + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()
        for batch in range(self.start, len(self)):
            positions = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            keys = [(self.epoch, position) for position in positions[self.rank :: self.world]]
            for stream in self.streams:
                joining = stream.keys(self.epoch * len(self) + batch)
                keys += joining[self.rank :: self.world]
            yield keys


def _share(stream: Stream, batch_size: int, world: int) -> int:
    """Return how many items of a stream join a batch."""
    count = round(stream.share * batch_size)
    if not 1 <= count <= stream.size or count % world:
        raise UserError(
            f"a batch of {batch_size} takes {count} unlabeled samples from {stream.name!r}, which "
            f"has {stream.size}, for {world} process(es); choose another share of it "
            f"(now {stream.share:g} per labeled sample)"
        )
    return count


class _StreamOrder:
    """What each batch of a run takes from a stream.

    The passes over a stream are laid end to end and cut into batches, so a batch may hold the end
    of one pass and the beginning of the next. The order of a pass depends on its number alone, and
    is drawn when a batch first needs it.

    Args:
        stream: the samples.
        count: how many of them join a batch of all ranks.
        seed: of every order.
    """

    def __init__(self, stream: Stream, count: int, seed: int) -> None:
        self.stream = stream
        self.count = count
        self.seed = seed
        self._pass = -1  # the pass whose order is kept
        self._order = torch.empty(0, dtype=torch.int64)

    def keys(self, batch: int) -> list[Key]:
        """Return what the run's batch of that number takes; a key's epoch is the pass."""
        keys: list[Key] = []
        while len(keys) < self.count:
            number, done = divmod(batch * self.count + len(keys), self.stream.size)
            positions = self._order_of(number)[done : done + self.count - len(keys)].tolist()
            keys += [(number, self.stream.first + position) for position in positions]
        return keys

    def _order_of(self, number: int) -> torch.Tensor:
        if number != self._pass:
            seed = ((self.seed * PRIME + number) * PRIME + self.stream.first) % 2**63
            generator = torch.Generator().manual_seed(seed)
            self._order = torch.randperm(self.stream.size, generator=generator)
            self._pass = number
        return self._order


class BatchLoader:
    """Batches on a device, in the order of their keys.

    On a CPU the loading processes make whole batches. On an accelerator they only load, and the
    batch is finished there: bytes travel instead of floats, and augmentation is fast there.

    Loading processes live as long as the loader; they get every epoch's keys from here.

    Args:
        samples: what to load.
        batches: the keys of each batch; iterated anew for every pass.
        num_workers: loading processes; None takes the `default_workers`.
        device: where the batches are used.
        world: number of processes of the run, which share the CPUs of the machine.
    """

    def __init__(
        self,
        samples: Samples,
        batches: Iterable[list[Key]],
        num_workers: int | None,
        device: torch.device | str = "cpu",
        world: int = 1,
    ) -> None:
        self.samples = samples
        self.batches = batches
        self.num_workers = default_workers(samples, world) if num_workers is None else num_workers
        self.device = torch.device(device)
        self._loader: DataLoader[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            self._loader = self._make()
        for batch in self._loader:
            if self.device.type == "cpu":
                yield Batch.of(batch)
            else:
                yield self.samples.finish(Batch.of(batch), self.device)

    def _make(self) -> DataLoader[Batch]:
        self.samples.before_loading()
        whole = self.device.type == "cpu"
        return DataLoader(
            self.samples if whole else _Unfinished(self.samples),
            batch_sampler=self.batches,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_run,
            # A generator of its own: iterating would otherwise draw from the global one, also on
            # resume, and the run would not repeat exactly.
            generator=torch.Generator(),
        )


def lost_loader(error: BaseException) -> UserError | None:
    """Return what to say of an error, if a loading process was killed; else None.

    PyTorch raises it wherever the run is when the signal comes.
    """
    if not (isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")):
        return None
    return UserError(
        f"a loading process was ended from outside ({' '.join(str(error).split())}), as by a "
        "machine that is out of memory; lower train.num_workers or train.batch_size, and add "
        "--resume to go on where a checkpoint was saved"
    )


class _Unfinished(Dataset[Batch]):
    """Batches as `Samples.load` gives them."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitems__(self, keys: list[Key]) -> Batch:
        return self.samples.load(keys)


def default_workers(samples: Samples, world: int = 1) -> int:
    """Return how many loading processes a recipe gets that does not say.

    None for samples in memory, which are a batch faster than they could be sent, and for a few
    files; else one for each CPU of this process but one, up to 8.

    Args:
        samples: what is loaded.
        world: number of processes of the run on this machine.
    """
    if not samples.reads_files or len(samples) < MIN_FILES:
        return 0
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cpus = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    return max(0, min(MAX_WORKERS, cpus // world - 1))


def training_loader(
    samples: Samples,
    sampler: EpochSampler,
    num_workers: int | None,
    device: torch.device | str = "cpu",
) -> BatchLoader:
    """Return a loader of training batches in the sampler's order."""
    return BatchLoader(samples, sampler, num_workers, device, sampler.world)


def evaluation_loader(
    samples: Samples,
    batch_size: int,
    num_workers: int | None,
    device: torch.device | str = "cpu",
    *,
    rank: int = 0,
    world: int = 1,
) -> BatchLoader:
    """Return a loader of every item exactly once, shared among ranks, neither padded nor cut."""
    keys = [(0, position) for position in range(rank, len(samples), world)]
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return BatchLoader(samples, batches, num_workers, device, world)


def _leave_signals_to_the_run(worker: int) -> None:
    """Ignore what asks a run to end, in its loading processes: it needs them to end its step.

    A terminal or a scheduler sends the signal to all of them; they end when the run does.
    """
    for name in SIGNALS:
        number = signal.Signals.__members__.get(name)
        if number is not None and number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGTERM, _end_soon)


def _end_soon(number: int, frame: FrameType | None) -> None:
    """End in a while: SIGTERM also comes from the run itself, which then waits for this process."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

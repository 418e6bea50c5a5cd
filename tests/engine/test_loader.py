from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tutelage import Batch, UserError
from tutelage.data.samples import Key, Samples, Stream
from tutelage.engine.evaluate import EvalLoading
from tutelage.engine.loader import (
    EpochSampler,
    default_workers,
    evaluation_loader,
    lost_loader,
    training_loader,
)


def keys(sampler: EpochSampler, epoch: int, start: int = 0) -> list[list[tuple[int, int]]]:
    sampler.epoch, sampler.start = epoch, start
    return list(sampler)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first, again = keys(EpochSampler(100, 10, seed=3), 2), keys(EpochSampler(100, 10, seed=3), 2)
    assert first == again
    assert first != keys(EpochSampler(100, 10, seed=3), 1)
    assert first != keys(EpochSampler(100, 10, seed=4), 2)
    assert sorted(i for batch in first for _, i in batch) == list(range(100))
    assert all(epoch == 2 for batch in first for epoch, _ in batch)


def test_it_goes_on_in_mid_epoch() -> None:
    sampler = EpochSampler(100, 10, seed=0)
    assert keys(sampler, 1, start=4) == keys(sampler, 1)[4:]


def test_ranks_share_the_batch_of_one_rank() -> None:
    whole = keys(EpochSampler(64, 16, seed=0), 0)
    halves = [keys(EpochSampler(64, 16, 0, rank=rank, world=2), 0) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*halves, strict=True)] == [
        sorted(batch) for batch in whole
    ]


def test_a_ragged_last_batch_is_left_out_unless_it_is_the_only_one() -> None:
    assert [len(b) for b in keys(EpochSampler(25, 10, seed=0), 0)] == [10, 10]
    assert [len(b) for b in keys(EpochSampler(7, 10, seed=0), 0)] == [7]


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size 9 does not divide among 2 processes"):
        EpochSampler(100, 9, seed=0, world=2)


def test_a_stream_is_drawn_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream("near", first=100, size=25, share=1.0)
    sampler = EpochSampler(100, 10, seed=0, streams=[stream])
    drawn: list[int] = []
    draw = torch.randperm
    monkeypatch.setattr(
        torch,
        "randperm",
        lambda size, generator: drawn.append(size) or draw(size, generator=generator),
    )
    batches = [[key for key in batch if key[1] >= 100] for batch in keys(sampler, 0)]
    assert drawn == [100, 25, 25, 25, 25]  # one epoch of 100, and four passes over the stream
    joined = [key for batch in batches for key in batch]
    for number in range(4):
        one_pass = joined[25 * number : 25 * (number + 1)]
        assert {epoch for epoch, _ in one_pass} == {number}
        assert sorted(position for _, position in one_pass) == list(range(100, 125))


def test_a_stream_goes_on_in_mid_epoch() -> None:
    streams = [Stream("near", first=100, size=25, share=1.0)]
    sampler = EpochSampler(100, 10, seed=0, streams=streams)
    whole = keys(sampler, 1)
    again = EpochSampler(100, 10, seed=0, streams=streams)
    assert keys(again, 1, start=4) == whole[4:]


class ProcessIds(Samples):
    """Samples whose inputs are the number of the process that loads them."""

    def __init__(self, size: int, *, in_files: bool = False) -> None:
        self.size = size
        self.in_files = in_files
        self.num_prepared = 0

    @property
    def reads_files(self) -> bool:
        return self.in_files

    def before_loading(self) -> None:
        self.num_prepared += 1

    def __len__(self) -> int:
        return self.size

    def batch(self, keys: Sequence[Key]) -> Batch:
        epochs = torch.tensor([epoch for epoch, _ in keys])
        ids = torch.full((len(keys),), os.getpid()) + self.num_prepared * 2**32
        return Batch({"inputs": ids, "labels": epochs})

    def subset(self, positions: Sequence[int] | Tensor) -> ProcessIds:
        return ProcessIds(len(positions))


def test_loading_processes_live_as_long_as_the_loader() -> None:
    samples = ProcessIds(40)
    sampler = EpochSampler(40, 10, seed=0)
    loader = training_loader(samples, sampler, num_workers=2)
    processes = []
    for epoch in (0, 1, 5):
        sampler.epoch = epoch
        batches = list(loader)
        assert [int(batch.labels[0]) for batch in batches] == [epoch] * 4
        processes.append({int(batch.inputs[0]) for batch in batches})
    assert len(processes[0]) == 2
    assert processes[0] == processes[1] == processes[2]
    assert {number // 2**32 for number in processes[0]} == {1}  # made ready once, and before
    next(iter(loader))  # a pass that is left, as by a run that is interrupted
    sampler.start = 2
    assert [len(batch.inputs) for batch in loader] == [10, 10]


def test_a_killed_loading_process_is_a_sentence() -> None:
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    lost = lost_loader(error)
    assert lost is not None
    assert "(DataLoader worker (pid 7) is killed by signal: Killed.), as by a machine" in str(lost)
    assert lost_loader(RuntimeError("no such width")) is None


def test_validation_keeps_its_processes_until_other_samples_come() -> None:
    loading = EvalLoading(10, 1, torch.device("cpu"))
    first, second = ProcessIds(20), ProcessIds(30)
    passes = [list(loading.batches(samples)) for samples in (first, first, second, first)]
    processes = [int(batches[0].inputs[0]) % 2**32 for batches in passes]
    assert processes[0] == processes[1]
    assert len(set(processes)) == 3
    assert [sum(len(batch.inputs) for batch in batches) for batches in passes] == [20, 20, 30, 20]


def test_the_default_number_of_processes_fits_data_and_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = ProcessIds(1000, in_files=True)
    for cpus, world, expected in ((1, 1, 0), (2, 1, 1), (16, 1, 8), (16, 4, 3), (4, 8, 0)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cpus: set(range(n)))
        assert default_workers(files, world) == expected
        assert default_workers(ProcessIds(1000), world) == 0
        assert default_workers(ProcessIds(999, in_files=True), world) == 0


class Doubled(ProcessIds):
    """Samples that are finished by doubling them."""

    def load(self, keys: Sequence[Key]) -> Batch:
        return Batch({"inputs": torch.tensor([position for _, position in keys])})

    def finish(self, loaded: Batch, device: torch.device | str) -> Batch:
        return Batch({"inputs": (2 * loaded.inputs).to(device)})


def test_on_an_accelerator_batches_are_finished_there() -> None:
    """The device `meta` stands for one: it has shapes, but no values."""
    loader = evaluation_loader(Doubled(5), 2, 0, "meta")
    assert [tuple(batch.inputs.shape) for batch in loader] == [(2,), (2,), (1,)]
    assert all(batch.inputs.device.type == "meta" for batch in loader)

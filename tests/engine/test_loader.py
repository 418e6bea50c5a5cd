from __future__ import annotations

import pytest
import torch

from tutelage import UserError
from tutelage.data.samples import Stream
from tutelage.engine.loader import EpochSampler


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

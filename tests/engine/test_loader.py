from __future__ import annotations

import pytest

from tutelage import UserError
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

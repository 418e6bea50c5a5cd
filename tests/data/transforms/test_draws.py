from __future__ import annotations

import torch

from tutelage.data.transforms import Draws


def draws(views: range, ids: range) -> Draws:
    return Draws(torch.tensor(views), torch.tensor(ids))


def test_numbers_depend_on_view_id_and_counter_alone() -> None:
    ids = torch.tensor([5, 900_000_000, 0])
    whole = Draws(torch.tensor([1, 4, 2**62]), ids).uniform(4)
    turned = Draws(torch.tensor([2**62, 4, 1]), ids.flip(0)).uniform(9)
    assert torch.equal(whole, turned.flip(0)[:, :4])
    assert whole.dtype == torch.float64


def test_numbers_are_spread_evenly_and_not_correlated() -> None:
    """Neighboring views, ids and counters, as epochs and samples are, give independent numbers."""
    for values in (
        draws(range(1, 20_001), range(20_000)).uniform(5),
        Draws(torch.ones(20_000, dtype=torch.int64), torch.arange(20_000)).uniform(5),
        Draws(torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64)).uniform(5),
        draws(range(1), range(1)).uniform(100_000).view(-1, 5),
    ):
        assert values.min() >= 0
        assert values.max() < 1
        counts = torch.histc(values.float(), bins=20, min=0, max=1)
        expected = values.numel() / 20
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < 43.8  # the 99.9 % quantile with 19 degrees of freedom
        neighbors = torch.corrcoef(torch.cat([values[:-1], values[1:]], 1).T)
        neighbors.fill_diagonal_(0)
        assert neighbors.abs().max() < 5 / len(values) ** 0.5


def test_draws_within_a_step_are_others() -> None:
    own = draws(range(1, 101), range(100))
    columns = [own, own.within(0), own.within(1), own.within(0).within(1), own.within(1).within(0)]
    numbers = torch.stack([each.uniform(1)[:, 0] for each in columns])
    assert len(numbers.unique()) == 500
    assert torch.equal(own.within(1).uniform(2), own.within(1).uniform(2))


def test_whole_numbers_reach_every_value() -> None:
    assert draws(range(1, 1001), range(1000)).integers(7).bincount().min() > 90

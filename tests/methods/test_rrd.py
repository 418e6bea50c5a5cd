"""RRD against the official code of UnKD's baseline."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.helpers.vectors import tensor
from tests.methods.recommenders import baseline_scores, interactions, names_of
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import RRD, rrd_loss
from tutelage.methods._rankings import Rankings
from tutelage.methods.rrd import ItemSampler

RECOMMENDER_EXAMPLES: dict[str, Callable[[], Method]] = {"rrd": lambda: RRD(num_candidates=40)}


@pytest.mark.parametrize("name", names_of("baseline"))
def test_the_loss_is_that_of_the_official_code(name: str) -> None:
    """The vectors have the uninteresting items' values as they enter the sum."""
    student, _ = baseline_scores(name)
    others = tensor("unkd", f"{name}_rrd_uninteresting_scores")
    expected = float(tensor("unkd", f"{name}_rrd_loss"))
    assert rrd_loss(student.sigmoid(), others).item() == pytest.approx(expected, rel=1e-12)


def test_padding_is_as_if_it_were_not_there() -> None:
    student = torch.randn(3, 5, dtype=torch.float64)
    others = torch.randn(3, 4, dtype=torch.float64)
    mask = (torch.arange(5) < 3).expand(3, 5)
    torch.testing.assert_close(rrd_loss(student, others, mask), rrd_loss(student[:, :3], others))


def test_uninteresting_items_are_neither_the_users_nor_ranked_however_few_are_left() -> None:
    known = interactions()
    items = torch.arange(150).expand(known.num_users, 150)
    is_free = ~known.contains(torch.arange(known.num_users)[:, None], items)
    ranked = items.where(is_free, 999).sort(1).values[:, : 150 - 9 - 2]
    rankings = Rankings(
        ranked[:, None].int(),
        torch.zeros(len(ranked), 1, ranked.shape[1]),
        torch.full((len(ranked), 1), ranked.shape[1]),
    )
    sampler = ItemSampler(
        rankings, known, num_interesting=5, num_uninteresting=400, mu=30.0, seed=0
    )
    others = sampler(0, torch.arange(known.num_users))["rrd_others"]
    left = items.where(is_free, -1).sort(1).values[:, -2:]
    assert all(
        set(row.tolist()) == set(two.tolist()) for row, two in zip(others, left, strict=True)
    )
    assert abs(float((others == left[:, :1]).double().mean()) - 0.5) < 0.02


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"of the same rows, got 3 .* and 2"):
        rrd_loss(torch.zeros(3, 5), torch.zeros(2, 5))
    with pytest.raises(UserError, match=r"num_interesting of RRD is a whole number"):
        RRD(num_interesting=0)

"""CD against the official code of UnKD's baseline, and the law of its items."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.helpers.vectors import tensor
from tests.methods.recommenders import baseline_scores, names_of
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import CD, cd_loss
from tutelage.methods._rankings import draw_ranks

RECOMMENDER_EXAMPLES: dict[str, Callable[[], Method]] = {
    "cd": CD,
    "cd of all items": lambda: CD(num_items=500),
}


@pytest.mark.parametrize("name", names_of("baseline"))
def test_the_loss_is_that_of_the_official_code(name: str) -> None:
    """The code's has 1e-10 inside its logarithms."""
    student, teacher = baseline_scores(name)
    expected = float(tensor("unkd", f"{name}_cd_loss"))
    target, inner = torch.sigmoid(teacher / 2), torch.sigmoid(student)
    official = -(target * (inner + 1e-10).log() + (1 - target) * (1 - inner + 1e-10).log())
    assert official.mean().item() == pytest.approx(expected, rel=1e-12)
    assert cd_loss(student, teacher).item() == pytest.approx(expected, rel=1e-8)


def test_ranks_are_drawn_without_replacement_in_proportion_to_their_weights() -> None:
    weights = torch.tensor([5.0, 3.0, 1.0])
    lengths = torch.full((60_000,), 3)
    generator = torch.Generator().manual_seed(0)
    ranks = draw_ranks(weights.log(), lengths, 2, generator)
    assert bool((ranks[:, 0] < ranks[:, 1]).all())
    # P{a, b} = p_a p_b (1/(1 − p_a) + 1/(1 − p_b))
    p = weights / weights.sum()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        share = ((ranks[:, 0] == first) & (ranks[:, 1] == second)).float().mean()
        law = p[first] * p[second] * (1 / (1 - p[first]) + 1 / (1 - p[second]))
        assert float(share) == pytest.approx(float(law), abs=0.01)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"of the same items, got \(4, 3\) .* \(4, 2\)"):
        cd_loss(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(UserError, match=r"temperature of CD must be positive"):
        CD(temperature=0.0)

"""RD against the official code of UnKD's baseline."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.helpers.vectors import cases, tensor
from tests.methods.recommenders import baseline_scores, names_of
from tutelage.core import Method
from tutelage.errors import UserError
from tutelage.methods import RD, rd_loss

RECOMMENDER_EXAMPLES: dict[str, Callable[[], Method]] = {"rd": lambda: RD(num_items=7)}


@pytest.mark.parametrize("name", names_of("baseline"))
def test_the_loss_is_that_of_the_official_code(name: str) -> None:
    """Its weights are in float32."""
    student, _ = baseline_scores(name)
    expected = float(tensor("unkd", f"{name}_rd_loss"))
    decay = cases("unkd")[name]["rd"]["lamda"]
    assert rd_loss(student, decay=decay).item() == pytest.approx(expected, rel=1e-5)


def test_masked_items_count_as_zero() -> None:
    scores = torch.zeros(2, 3)
    mask = torch.tensor([[True, False, False], [False, False, False]])
    weight = torch.softmax(-torch.arange(3.0), 0)[0]
    torch.testing.assert_close(rd_loss(scores, mask), weight * torch.tensor(2.0).log() / 6)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"RD needs scores \(N, k\) .* got \(4,\)"):
        rd_loss(torch.zeros(4))
    with pytest.raises(UserError, match=r"num_items of RD is a whole number from 1 on, got 0"):
        RD(num_items=0)
    with pytest.raises(UserError, match=r"decay of RD must be positive, got 0"):
        RD(decay=0)

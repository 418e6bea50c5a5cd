"""The moving average of a student."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tutelage.engine.moving_average import MovingAverage


class Indexed(nn.Module):
    """A layer with an index."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("index", torch.tensor([5, 6, 101]))


def test_weights_are_averaged_and_an_index_stays() -> None:
    network = Indexed()
    average = MovingAverage(network, decay=0.9)
    for value in (1.0, 2.0, 3.0):
        network.weight.data.fill_(value)
        average.update_parameters(network)
    # The first update copies.
    expected = 0.9 * (0.9 * 1.0 + 0.1 * 2.0) + 0.1 * 3.0
    assert average.module.weight.tolist() == pytest.approx([expected] * 3)
    assert average.module.index.tolist() == [5, 6, 101]

from __future__ import annotations

import copy

import torch
from torch import nn

from tutelage.core.frozen import Unregistered


class Owner(nn.Module):
    """Uses a classifier that it does not own."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.own = nn.Linear(4, 4)
        self.classifier = Unregistered(classifier)


def test_an_owner_neither_trains_nor_saves_nor_moves_the_module() -> None:
    classifier = nn.Sequential(nn.Linear(4, 2), nn.Dropout()).eval()
    owner = Owner(classifier)
    assert len(list(owner.parameters())) == 2
    assert set(owner.state_dict()) == {"own.weight", "own.bias"}
    owner.train().double()
    assert not classifier.training
    assert classifier[0].weight.dtype == torch.float32
    assert owner.classifier.module is classifier
    assert repr(owner.classifier) == "Unregistered(Sequential)"


def test_a_copy_of_the_owner_has_a_copy_of_the_module() -> None:
    owner = Owner(nn.Linear(4, 2))
    copied = copy.deepcopy(owner)
    assert copied.classifier.module is not owner.classifier.module
    torch.testing.assert_close(
        copied.classifier.module.state_dict(), owner.classifier.module.state_dict()
    )

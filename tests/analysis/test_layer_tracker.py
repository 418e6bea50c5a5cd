"""Maps during training: any inputs, any network, nothing of the student changed."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from tutelage.analysis import LayerTracker, layer_map, layers_of
from tutelage.models import small_cnn


def test_a_record_is_the_map_of_teacher_and_student() -> None:
    torch.manual_seed(0)
    teacher, student = small_cnn(width=8), small_cnn(width=4)
    images = torch.rand(160, 1, 16, 16)
    record = LayerTracker(teacher, (images,)).record(student)
    names = [layers_of(network, (images[:4],)) for network in (teacher, student)]
    assert record["rows"] == names[0]
    assert record["columns"] == names[1]
    assert record["samples"] == 160
    expected = torch.tensor(layer_map([teacher, student], names, (images,)))
    assert torch.allclose(torch.tensor(record["value"]), expected, rtol=0, atol=1e-6)
    json.dumps(record, allow_nan=False)


class Scorer(nn.Module):
    """Takes a mapping; one layer is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(11, 6)
        self.dead = nn.Linear(6, 5)
        self.score = nn.Linear(6, 2)
        nn.init.zeros_(self.dead.weight)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        features = self.embedding(tokens)
        return self.score(features) + self.dead(features).sum()


@pytest.mark.filterwarnings("ignore:CKA is undefined")
def test_a_network_of_text_is_tracked_and_left_as_it_is() -> None:
    torch.manual_seed(0)
    teacher, student = Scorer(), Scorer().train()
    before = copy.deepcopy(student.state_dict())
    tracker = LayerTracker(teacher, ({"tokens": torch.randint(0, 11, (32, 7))},))
    record = tracker.record(student)
    assert record["rows"] == record["columns"] == ["embedding", "score", "dead"]
    assert record["samples"] == 32
    assert record["value"][2] == [None, None, None]
    assert student.training
    assert not any(module._forward_hooks for module in student.modules())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())

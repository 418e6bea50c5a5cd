"""Inputs of any task: counted, cut into batches, moved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.analysis import layers_of, split_inputs
from tutelage.analysis._inputs import num_items
from tutelage.core import Batch


def test_a_batch_is_cut_into_batches_with_all_its_fields() -> None:
    batch = Batch({"inputs": torch.arange(10).view(5, 2), "ids": torch.arange(5), "epoch": 3})
    parts = split_inputs(batch, 2)
    assert all(isinstance(part, Batch) for part in parts)
    assert [part.ids.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert [part["epoch"] for part in parts] == [3, 3, 3]
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)


def test_lists_are_cut_item_by_item() -> None:
    images = [torch.rand(3, 8, 8 + index) for index in range(3)]
    targets = [{"boxes": torch.zeros(index, 4)} for index in range(3)]
    parts = split_inputs((images, targets), 2)
    assert [len(part[0]) for part in parts] == [2, 1]
    assert parts[1][0][0] is images[2]
    assert parts[1][1][0] is targets[2]
    assert num_items((images,)) == 3


def test_what_does_not_belong_to_items_goes_into_every_part() -> None:
    table = torch.rand(7, 2)
    for inputs in split_inputs((torch.rand(4, 3), table, None, torch.tensor(0.5)), 3):
        assert inputs[1] is table
        assert inputs[2] is None
        assert inputs[3] == 0.5


def test_inputs_without_items_and_bare_tensors_are_named() -> None:
    with pytest.raises(UserError, match="hold no tensor and no list with one entry an item"):
        split_inputs(({"scale": 2.0},))
    with pytest.raises(UserError, match=r"a tuple of positional arguments, got a Tensor; give"):
        layers_of(nn.Linear(2, 2), torch.rand(4, 2))


def test_a_detector_takes_a_list() -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
            return self.head(self.backbone(torch.stack(images)).mean((2, 3)))

    images = [torch.rand(3, 8, 8) for _ in range(4)]
    assert layers_of(Detector(), (images,)) == ["backbone", "head"]

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tutelage import UserError
from tutelage.core import Batch

IMAGES, LABELS, IDS = torch.randn(4, 3), torch.arange(4), torch.tensor([7, 3, 5, 1])


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (IMAGES, ["inputs"]),
        ((IMAGES, LABELS), ["inputs", "labels"]),
        ([IMAGES, LABELS, IDS], ["inputs", "labels", "ids"]),
        ((IMAGES, LABELS, IDS, "more"), ["inputs", "labels", "ids"]),
        ({"inputs": IMAGES, "ids": IDS, "weights": LABELS}, ["inputs", "ids", "weights"]),
        ({"pixel_values": IMAGES, "ids": IDS, "labels": LABELS}, ["inputs", "labels", "ids"]),
    ],
)
def test_a_batch_is_made_of_what_loaders_give(value: Any, fields: list[str]) -> None:
    batch = Batch.of(value)
    assert list(batch) == fields
    assert Batch.of(batch) is batch
    inputs = batch.inputs["pixel_values"] if isinstance(batch.inputs, dict) else batch.inputs
    assert inputs is IMAGES
    if "labels" in fields:
        assert batch.labels is LABELS
    if "ids" in fields:
        assert batch.ids is IDS


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"a batch needs the field 'inputs', got \['labels'\]"):
        Batch({"labels": LABELS})
    with pytest.raises(UserError, match="needs labels; give batches as"):
        _ = Batch.of(IMAGES).labels
    with pytest.raises(UserError, match="the batch has no ids"):
        _ = Batch.of((IMAGES, LABELS)).ids
    with pytest.raises(KeyError):
        _ = Batch.of(IMAGES)["labels"]


def test_samples_are_as_they_are_stored_unless_views_say_otherwise() -> None:
    batch = Batch.of((IMAGES, LABELS, IDS))
    assert batch.views.tolist() == [0, 0, 0, 0]
    views = torch.tensor([0, 1, 2, 3])
    assert batch.with_fields({"views": views}).views is views
    assert "views" not in batch


def test_all_tensors_move_and_the_rest_stays() -> None:
    targets = [{"boxes": torch.zeros(1, 4)}, {"boxes": torch.zeros(2, 4)}]
    pair = (IMAGES, {"mask": IMAGES})
    batch = Batch({"inputs": [IMAGES], "labels": targets, "extra": pair, "name": "a"}).to("meta")
    assert batch.inputs[0].is_meta
    assert all(target["boxes"].is_meta for target in batch.labels)
    assert batch["extra"][1]["mask"].is_meta
    assert isinstance(batch["extra"], tuple)
    assert batch["name"] == "a"


def test_batches_are_joined_field_by_field() -> None:
    first = Batch({"inputs": {"tokens": IMAGES}, "labels": [1, 2], "ids": IDS})
    whole = first.cat([first, first])
    assert whole.inputs["tokens"].shape == (12, 3)
    assert whole.labels == [1, 2] * 3
    assert whole.ids.tolist() == IDS.tolist() * 3
    assert first.cat([]).ids.tolist() == IDS.tolist()
    with pytest.raises(UserError, match="batches of different fields cannot be joined"):
        first.cat([Batch.of(IMAGES)])


class Whole(Dataset[Any]):
    """Gives whole batches."""

    def __len__(self) -> int:
        return 4

    def __getitems__(self, positions: list[int]) -> Batch:
        return Batch.of((IMAGES[positions], LABELS[positions], IDS[positions]))


def as_it_is(batch: Batch) -> Batch:
    return batch


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_gives_batches_on(num_workers: int) -> None:
    loader = DataLoader(Whole(), batch_size=2, collate_fn=as_it_is, num_workers=num_workers)
    batches = list(loader)
    assert all(isinstance(batch, Batch) for batch in batches)
    joined: Tensor = batches[0].cat(batches[1:]).ids
    assert torch.equal(joined, IDS)


def test_a_batch_can_be_pickled() -> None:
    batch = pickle.loads(pickle.dumps(Batch.of((IMAGES, LABELS))))
    assert torch.equal(batch.inputs, IMAGES)
    assert repr(batch) == "Batch(inputs, labels)"

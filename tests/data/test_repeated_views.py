"""Views that repeat, and samples by their keys."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tests.helpers.own_data import write_tree
from tutelage.data import Digits, ImageFolder
from tutelage.data.repeated_views import KeyedSamples, RepeatedViews


def test_epochs_repeat_the_views_of_the_first_ones() -> None:
    train = Digits(augment=True).splits(100, seed=2)["train"]
    repeated = RepeatedViews(train, 3)
    assert len(repeated) == 100
    for epoch in (1, 4, 7):
        batch = repeated.batch([(epoch, 5), (epoch, 50)])
        for field, value in train.batch([(1, 5), (1, 50)]).items():
            assert torch.equal(batch[field], value), field
    other = repeated.batch([(2, 5), (2, 50)])
    assert not torch.equal(other.inputs, repeated.batch([(1, 5), (1, 50)]).inputs)
    assert torch.equal(repeated.subset([5]).batch([(6, 0)]).inputs, train.batch([(0, 5)]).inputs)


def test_samples_by_their_keys() -> None:
    train = Digits(augment=True).splits(100, seed=2)["train"]
    keys = [(3, 7), (0, 7), (1, 2)]
    chosen = KeyedSamples(train, keys)
    assert len(chosen) == 3
    assert torch.equal(chosen.batch([(0, 1), (0, 2)]).inputs, train.batch(keys[1:]).inputs)
    assert torch.equal(chosen.subset([2]).batch([(9, 0)]).inputs, train.batch(keys[2:]).inputs)


def test_a_file_that_changed_is_seen_through_it(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 4, "test": 2})
    digests = []
    for seconds in (0, 1):
        os.utime(next((tmp_path / "train").rglob("*.png")), (seconds, seconds))
        samples = ImageFolder(str(tmp_path), size=24, validation=0.2).splits()["train"]
        digests.append(RepeatedViews(samples, 2).files_digest)
    assert digests[0] != digests[1]
    assert None not in digests
    assert RepeatedViews(Digits().splits()["train"], 2).files_digest is None

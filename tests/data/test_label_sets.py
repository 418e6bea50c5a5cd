from __future__ import annotations

import pytest
import torch

from tutelage import UserError
from tutelage.data._label_sets import random_subset, stratified_sets


def test_every_class_has_its_share_and_no_item_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    frequencies = torch.tensor([0.01, 0.05, 0.3, 0.9])
    rows = (torch.rand(1000, 4, generator=generator) < frequencies).float()
    parts = stratified_sets(rows, [0.7, 0.1, 0.2])
    assert torch.cat(parts).sort().values.tolist() == list(range(1000))
    assert [len(part) for part in parts] == pytest.approx([700, 100, 200], abs=4)
    shares = torch.stack([rows[part].sum(0) for part in parts]) / rows.sum(0)
    expected = torch.tensor([[0.7], [0.1], [0.2]]).expand(3, 4)
    assert (shares - expected)[:, 1:].abs().max() < 0.02
    # Of a rare class each part has at least what whole items allow.
    assert ((shares - expected)[:, 0].abs() * rows[:, 0].sum() <= 1).all()


def test_parts_depend_on_the_seed_alone() -> None:
    rows = torch.eye(5).repeat(8, 1)
    first = stratified_sets(rows, [0.5, 0.5])
    again = stratified_sets(rows, [0.5, 0.5])
    other = stratified_sets(rows, [0.5, 0.5], seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_larger_subset_contains_the_smaller() -> None:
    small = set(random_subset(50, 10, seed=3).tolist())
    assert small < set(random_subset(50, 20, seed=3).tolist())
    with pytest.raises(UserError, match="num_labels is 51, but the training part has 50"):
        random_subset(50, 51, seed=0)

"""Groups of items by popularity, against the official code of UnKD."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.vectors import cases, tensor
from tutelage.errors import UserError
from tutelage.models.recommendation import popularity_groups

PARTITIONS = [name for name in cases("unkd") if name.startswith("partition")]


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_greedy_partition_is_that_of_the_official_code(name: str) -> None:
    case = cases("unkd")[name]
    items = tensor("unkd", f"{name}_train_items", torch.int64)
    found = popularity_groups(items, case["n_items"], case["K_requested"])
    assert len(found) == case["K_obtained"]
    for key, value in (
        ("group_of_item", found.group_of_item),
        ("items_in_group_order", found.order),
        ("group_sizes", found.sizes),
    ):
        assert torch.equal(value, tensor("unkd", f"{name}_{key}", torch.int64)), key
    expected = tensor("unkd", f"{name}_group_mean_popularity")
    torch.testing.assert_close(found.mean_counts, expected, rtol=1e-12, atol=0)


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    num_groups=st.integers(1, 8),
)
@settings(max_examples=80, deadline=None)
def test_balanced_groups_are_few_ordered_and_not_empty(counts: list[int], num_groups: int) -> None:
    seen = sum(count > 0 for count in counts)
    items = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if num_groups > seen:
        with pytest.raises(UserError, match=f"with an interaction, {seen}, got {num_groups}"):
            popularity_groups(items, len(counts), num_groups, partition="balanced")
        return
    found = popularity_groups(items, len(counts), num_groups, partition="balanced")
    assert 1 <= len(found) <= num_groups
    assert bool((found.sizes > 0).all())
    assert sorted(found.mean_counts.tolist(), reverse=True) == found.mean_counts.tolist()
    assert (found.group_of_item < 0).tolist() == [count == 0 for count in counts]
    assert int(found.sizes.sum()) == seen


def test_equal_counts_are_cut_evenly() -> None:
    items = torch.arange(12).repeat(3)
    assert popularity_groups(items, 12, 4, partition="balanced").sizes.tolist() == [3, 3, 3, 3]
    assert popularity_groups(items, 12, 4).sizes.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("num_groups", [0, -1, 4, True, 2.0])
def test_a_wrong_number_of_groups_is_named(num_groups: int) -> None:
    with pytest.raises(UserError, match=r"num_groups must be from 1 to .* 3, got"):
        popularity_groups(torch.tensor([0, 1, 2]), 5, num_groups)

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from tutelage import UserError
from tutelage.data import Digits, ImageSet
from tutelage.data.splits import label_subset, stratified


def ids(splits: Mapping[str, ImageSet]) -> list[set[int]]:
    assert list(splits) == ["train", "validation", "test"]
    return [set(part.ids.tolist()) for part in splits.values()]


def test_parts_are_disjoint_complete_balanced_and_the_same_for_every_seed() -> None:
    first, second = Digits().splits(seed=0), Digits().splits(seed=1)
    train, validation, test = ids(first)
    assert ids(first) == ids(second)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train | validation | test) == 1797
    for part in first.values():
        counts = torch.bincount(part.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.1 * counts.max() + 1


def test_label_subsets_are_balanced_nested_and_drawn_by_the_seed() -> None:
    labels = Digits().splits()["train"].labels
    small, large = label_subset(labels, 100, seed=0), label_subset(labels, 205, seed=0)
    assert torch.bincount(labels[small]).tolist() == [10] * 10
    assert sorted(torch.bincount(labels[large]).tolist()) == [20] * 5 + [21] * 5
    assert set(small.tolist()) < set(large.tolist())
    assert set(small.tolist()) != set(label_subset(labels, 100, seed=1).tolist())


def test_labels_do_not_touch_validation_and_test() -> None:
    whole, few = ids(Digits().splits()), ids(Digits().splits(num_labels=50))
    assert whole[1:] == few[1:]
    assert len(few[0]) == 50
    assert few[0] < whole[0]


@pytest.mark.parametrize("count", [9, 100_000])
def test_too_few_and_too_many_labels_are_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"num_labels is {count}, but the training part has 107"):
        Digits().splits(num_labels=count)


def test_stratified_parts_cover_small_classes() -> None:
    labels = torch.tensor([0] * 5 + [1] * 100)
    parts = stratified(labels, [0.6, 0.2, 0.2])
    assert [int((labels[part] == 0).sum()) for part in parts] == [3, 1, 1]
    assert torch.cat(parts).sort().values.tolist() == list(range(105))


def test_cuts_of_many_classes_are_one_pass_over_the_labels() -> None:
    """Every class in turn, as if each were looked for alone; labels need not be 0, 1, 2, ..."""
    labels = torch.randint(40, (900,), generator=torch.Generator().manual_seed(0)) * 7 - 3
    generator = torch.Generator().manual_seed(5)
    by_class = []
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten()
        by_class.append(members[torch.randperm(len(members), generator=generator)].tolist())
    in_turn = [m[i] for i in range(900) for m in by_class if i < len(m)]
    assert label_subset(labels, 300, seed=5).tolist() == sorted(in_turn[:300])
    halves = [member for m in by_class for member in m[: round(len(m) / 2)]]
    assert stratified(labels, [0.5, 0.5], seed=5)[0].tolist() == sorted(halves)

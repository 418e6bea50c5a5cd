"""Data of users and items: what is held out, who is evaluated, and which weights fit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.data import HeldOutUsers, InteractionFiles, InteractionSamples
from tutelage.data.interaction_files import split_interactions
from tutelage.data.interaction_samples import draw_negatives
from tutelage.errors import UserError
from tutelage.models import BPRMF, LightGCN
from tutelage.models.recommendation import Interactions

COUNTS = [2, 5, 9, 1, 10, 30, 4, 4]


def interactions() -> Interactions:
    """Return users with the numbers of items in COUNTS, out of 40."""
    users = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    generator = torch.Generator().manual_seed(0)
    items = torch.cat([torch.randperm(40, generator=generator)[:count] for count in COUNTS])
    return Interactions.of_pairs(users, items, len(COUNTS), 40)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    held = interactions()
    lines = [f"u{user},i{item}\n" for user, item in zip(held.users, held.items, strict=True)]
    (tmp_path / "own.csv").write_text("user,item\n" + "".join(lines))
    return tmp_path


@pytest.mark.parametrize("holdout", [0.1, 0.2, 0.5])
def test_a_share_of_every_user_is_held_out_rounded_up_but_never_all(holdout: float) -> None:
    split = split_interactions(interactions(), holdout, 0.5, seed=3)
    expected = [min(math.ceil(holdout * count - 1e-9), count - 1) for count in COUNTS]
    assert split.held_out.user_counts.tolist() == expected
    assert (split.train.user_counts + split.held_out.user_counts).tolist() == COUNTS
    assert not bool(split.train.contains(split.held_out.users, split.held_out.items).any())
    whole = torch.cat([split.train.keys, split.held_out.keys]).sort().values
    assert torch.equal(whole, interactions().keys)


def test_users_are_evaluated_once_and_those_with_nothing_held_out_never() -> None:
    split = split_interactions(interactions(), 0.2, 0.3, seed=3)
    users = torch.cat([split.validation_users, split.test_users]).tolist()
    assert sorted(users) == [user for user, count in enumerate(COUNTS) if count > 1]
    assert len(split.validation_users) == 2


def test_the_split_depends_on_its_seed_alone() -> None:
    first, again, other = (split_interactions(interactions(), 0.2, 0.5, seed) for seed in (1, 1, 2))
    assert torch.equal(first.held_out.keys, again.held_out.keys)
    assert torch.equal(first.test_users, again.test_users)
    assert not torch.equal(first.held_out.keys, other.held_out.keys)


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_no_negative_is_an_item_of_the_user(seed: int, epoch: int) -> None:
    held = interactions()
    items = draw_negatives(held, seed, epoch)
    assert not bool(held.contains(held.users, items).any())
    assert torch.equal(items, draw_negatives(held, seed, epoch))


def test_negatives_are_uniform_over_what_is_left() -> None:
    held = Interactions.of_pairs(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 2, 3]), 1, 6)
    drawn = torch.cat([draw_negatives(held, 0, epoch) for epoch in range(1000)])
    counts = torch.bincount(drawn, minlength=6)
    assert counts[[0, 2, 3]].tolist() == [0, 0, 0]
    assert counts[[1, 4, 5]].float().div(1000).tolist() == pytest.approx([1, 1, 1], abs=0.1)


def test_a_user_with_nearly_all_items_still_gets_a_negative() -> None:
    items = torch.arange(1, 30_000)
    held = Interactions.of_pairs(torch.zeros_like(items), items, 1, 30_000)
    assert not bool(draw_negatives(held, 0, 0).any())


def test_parts_of_a_file(table: Path) -> None:
    data = InteractionFiles(str(table), min_user_items=4, holdout=0.2, validation_users=0.25)
    with pytest.warns(UserWarning, match=r"2 of 8 users have fewer than 4 items"):
        parts = data.splits(seed=5)
    train, validation, test = (parts[name] for name in ("train", "validation", "test"))
    assert isinstance(train, InteractionSamples)
    assert isinstance(test, HeldOutUsers)
    assert train.interactions.user_ids == ("u1", "u2", "u4", "u5", "u6", "u7")
    assert (len(validation), len(test)) == (2, 4)
    batch = train.batch([(2, 0), (2, 7)])
    assert sorted(batch) == ["ids", "inputs", "negatives", "positives"]
    assert bool(train.interactions.contains(batch.inputs, batch["positives"]).all())
    assert not bool(train.interactions.contains(batch.inputs, batch["negatives"]).any())
    few = train.subset([7, 0])
    assert torch.equal(few.batch([(2, 0)]).inputs, batch.inputs[1:])
    assert few.batch([(2, 0)])["negatives"] == batch["negatives"][1]


def test_repetitions_count_once_and_are_said(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("user,item\na,x\na,x\na,y\nb,x\nb,y\nb,z\n")
    with pytest.warns(UserWarning, match=r"1 of 6 interactions are repetitions"):
        split = InteractionFiles(str(tmp_path)).split()
    assert len(split.train) + len(split.held_out) == 5


def test_users_with_few_items_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("user,item\na,x\na,y\nb,x\nb,z\nc,v\nc,x\nd,w\n")
    says = r"1 of 4 users have fewer than 2 items and are left out, with 1 items that only they"
    with pytest.warns(UserWarning, match=says):
        split = InteractionFiles(str(tmp_path), min_user_items=2).split()
    assert split.train.user_ids == ("a", "b", "c")
    assert split.train.item_ids == ("x", "y", "z", "v")


def test_networks_get_the_sizes_and_the_graph(table: Path) -> None:
    data = InteractionFiles(str(table))
    network = data.prepare_network(LightGCN(dim=3))
    assert network(torch.tensor([0]))["items"].shape == (
        data.split().train.num_items,
        3,
    )
    with pytest.raises(UserError, match=r"BPRMF has 3 users and 4 items, but the data has 8"):
        data.prepare_network(BPRMF(3, 4))
    plain = torch.nn.Linear(2, 2)
    assert data.prepare_network(plain) is plain


def test_weights_of_other_data_or_of_another_split_are_refused(table: Path) -> None:
    data = InteractionFiles(str(table))
    facts = data.input_info(BPRMF())
    data.check_network(facts, "runs/teacher")
    data.check_network({}, "weights from elsewhere")
    other = InteractionFiles(str(table), split_seed=1)
    with pytest.raises(
        UserError, match=r"runs/teacher was trained on other interactions of the same"
    ):
        other.check_network(facts, "runs/teacher")
    fewer = InteractionFiles(str(table), min_user_items=5)
    with (
        pytest.warns(UserWarning, match=r"4 of 8 users have fewer than 5 items"),
        pytest.raises(UserError, match=r"on other users or items \(8 and \d+, here 4 and"),
    ):
        fewer.check_network(facts, "runs/teacher")


def test_settings_out_of_range_are_named(table: Path) -> None:
    with pytest.raises(UserError, match=r"data\.holdout is a share between 0 and 1, got 1"):
        InteractionFiles(str(table), holdout=1)
    with pytest.raises(UserError, match=r"data\.min_user_items is a whole number from 1 on"):
        InteractionFiles(str(table), min_user_items=0)
    with pytest.raises(UserError, match=r"data\.min_user_items .*, got True"):
        InteractionFiles(str(table), min_user_items=True)
    with pytest.raises(UserError, match=r"data\.root is a file or a folder, got 5"):
        InteractionFiles(5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"data\.user is the name of a column, got 3"):
        InteractionFiles(str(table), user=3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"data\.min_rating is a finite number, got nan"):
        InteractionFiles(str(table), min_rating=float("nan"))
    with pytest.raises(UserError, match=r"data\.split_seed is a whole number, got 0\.5"):
        InteractionFiles(str(table), split_seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no user with at least 31 items"):
        InteractionFiles(str(table), min_user_items=31).split()
    with pytest.raises(UserError, match=r"num_labels is for data with classes"):
        InteractionFiles(str(table)).splits(num_labels=10)
    with pytest.raises(UserError, match=r"fewer than two users have an item to hold out"):
        split_interactions(
            Interactions.of_pairs(torch.tensor([0, 1]), torch.tensor([0, 1]), 2, 2), 0.2, 0.5, 0
        )


def test_a_user_with_all_items_and_numbers_out_of_range_are_named() -> None:
    users, items = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])
    with pytest.raises(UserError, match=r"the user '0' has all 2 items"):
        InteractionSamples(Interactions.of_pairs(users, items, 2, 2))
    with pytest.raises(UserError, match=r"item number 1 is out of range: there are 1 items"):
        Interactions.of_pairs(users, items, 2, 1)
    with pytest.raises(UserError, match=r"user number 1 is out of range"):
        Interactions.of_pairs(users, items, 1, 2)

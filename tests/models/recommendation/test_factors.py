"""Factors from elsewhere, and the lists of items that recommenders are made for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tutelage.errors import UserError
from tutelage.models import FactorTables
from tutelage.models.recommendation import Interactions, item_scores, score_block

HELD = Interactions.of_pairs(
    torch.tensor([0, 0, 2, 2, 2, 0]),
    torch.tensor([3, 1, 0, 3, 2, 1]),
    3,
    4,
    user_ids=["a", "b", "c"],
    item_ids=["w", "x", "y", "z"],
)


def write(path: Path, **tables: Any) -> str:
    if path.suffix == ".npz":
        np.savez(path, **tables)
    else:
        save_file({name: torch.as_tensor(table) for name, table in tables.items()}, path)
    return str(path)


@pytest.mark.parametrize("name", ["als.npz", "als.safetensors"])
def test_factors_are_put_into_the_order_of_the_data(name: str, tmp_path: Path) -> None:
    users = torch.randn(4, 2)
    items = torch.randn(4, 2)
    ids = {"users": ["c", "other", "a", "b"], "items": ["z", "y", "x", "w"]}
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    path = write(tmp_path / name, users=users.numpy(), items=items.numpy())
    teacher = FactorTables(path, ids=str(tmp_path / "ids.json"))
    teacher.set_interactions(HELD)
    output = teacher(torch.tensor([0, 2]))
    assert torch.equal(output["users"], users[[2, 0]])
    assert torch.equal(output["items"], items.flip(0))
    assert not teacher.state_dict()


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    three, four = np.zeros((3, 2)), np.zeros((4, 2))
    with pytest.raises(UserError, match=r"no\.npz is missing"):
        FactorTables(str(tmp_path / "no.npz"))
    with pytest.raises(UserError, match=r"no matrix of floating-point numbers 'items'"):
        FactorTables(write(tmp_path / "a.npz", users=three))
    with pytest.raises(UserError, match=r"NaN or infinity in row 1 of 'items'"):
        FactorTables(write(tmp_path / "a.npz", users=three, items=np.array([[0.0], [np.inf]])))
    with pytest.raises(UserError, match=r"users of 2 numbers and items of 1"):
        FactorTables(write(tmp_path / "a.npz", users=three, items=np.zeros((4, 1))))
    (tmp_path / "b.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"b\.npz cannot be read"):
        FactorTables(str(tmp_path / "b.npz"))
    path = write(tmp_path / "c.npz", users=four, items=four)
    with pytest.raises(UserError, match=r"has 4 users, but the data has 3; give ids"):
        FactorTables(path).set_interactions(HELD)
    ids = tmp_path / "ids.json"
    for content, says in (
        ("[]", r"cannot be read .* lists 'users' and 'items'"),
        ('{"users": ["a", "b", "d", "e"], "items": []}', r"lacks 1 of the data's users, such as"),
        ('{"users": ["a", "b", "c", "a"], "items": []}', r"names some of the users twice"),
        ('{"users": ["a", "b", "c"], "items": []}', r"names 3 users, but .* has 4 rows"),
    ):
        ids.write_text(content)
        with pytest.raises(UserError, match=says):
            FactorTables(path, ids=str(ids)).set_interactions(HELD)


def test_lists_of_items() -> None:
    assert HELD.user_counts.tolist() == [2, 0, 3]
    assert HELD.item_counts.tolist() == [1, 1, 1, 2]
    rows, items = HELD.of_users(torch.tensor([2, 1, 0, 2]))
    assert rows.tolist() == [0, 0, 0, 2, 2, 3, 3, 3]
    assert items.tolist() == [0, 2, 3, 1, 3, 0, 2, 3]
    found = HELD.contains(torch.arange(3)[:, None], torch.arange(4))
    assert found.int().tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 1]]
    nobody = Interactions.of_pairs(torch.zeros(0).long(), torch.zeros(0).long(), 2, 3)
    assert not bool(nobody.contains(torch.tensor([0, 1]), torch.tensor([0, 2])).any())


def test_digests_tell_ids_and_interactions_apart() -> None:
    other_ids = Interactions(HELD.offsets, HELD.items, 4, ("a", "b", "d"), HELD.item_ids)
    assert other_ids.ids_digest() != HELD.ids_digest()
    assert other_ids.digest() == HELD.digest()
    fewer = Interactions.of_pairs(HELD.users[1:], HELD.items[1:], 3, 4)
    assert fewer.digest() != HELD.digest()


@pytest.mark.parametrize("width", [5, 64])
def test_scores_of_some_items_are_those_of_all(width: int) -> None:
    output = {"users": torch.randn(3, width), "items": torch.randn(7, width)}
    items, minus = torch.randint(7, (3, 4)), torch.randint(7, (3, 4))
    scores = score_block(output)
    expected = scores.gather(1, items) - scores.gather(1, minus)
    torch.testing.assert_close(item_scores(output, items, minus=minus), expected)
    torch.testing.assert_close(item_scores({"scores": scores}, items, minus=minus), expected)
    with pytest.raises(UserError, match=r"gives a Tensor; a recommender gives a mapping"):
        score_block(scores)

"""A recommender as files: two tables and the ids of their rows, and recommendations from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tutelage.core.modes import device_of, eval_mode
from tutelage.core.taps import call
from tutelage.errors import UserError, near_misses, reason
from tutelage.io import read_json, write_json, write_tensors
from tutelage.models.recommendation import Interactions
from tutelage.models.recommendation.interactions import is_factors

TABLES = "recommender.safetensors"
IDS = "ids.json"
FIX = "give the folder of a finished run of a recommender"


@dataclass(frozen=True)
class Recommender:
    """The tables of a deployed recommender.

    Attributes:
        users: (U, d) float32.
        items: (I, d) float32.
        interactions: what every user has, which is not recommended.
    """

    users: Tensor
    items: Tensor
    interactions: Interactions

    def top(self, user: str, k: int, *, with_known: bool = False) -> list[tuple[str, float]]:
        """Return the ids and the scores of a user's best items.

        Args:
            user: the outside id.
            k: how many.
            with_known: whether items that the user has are among them.

        Raises:
            UserError: If there is no such user, or k < 1.
        """
        if not isinstance(k, int) or k < 1:
            raise UserError(f"the number of items (--top) is a whole number from 1 on, got {k}")
        ids = self.interactions.user_ids
        if user not in ids:
            raise UserError(f"there is no user {user!r}{near_misses(user, ids[:10_000])}")
        number = ids.index(user)
        scores = self.items @ self.users[number]
        if not with_known:
            scores[self.interactions.of_users(torch.tensor([number]))[1]] = -torch.inf
        best = scores.topk(min(k, len(scores)))
        return [
            (self.interactions.item_ids[item], score)
            for item, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            if score > -float("inf")
        ]


def write_recommender(model: nn.Module, interactions: Interactions, folder: Path) -> None:
    """Write `recommender.safetensors` and `ids.json`.

    The tables are the final factors, those of LightGCN after propagation: the score of an item is
    the inner product of two rows, without a network and without the data. `known_offsets` and
    `known_items` are the lists of what users have. A network that gives scores and no factors has
    no tables, and nothing is written.

    Args:
        model: the recommender.
        interactions: what every user has, in training or held out.
        folder: of the files.
    """
    device = device_of(model)
    with torch.no_grad(), eval_mode(model):
        output = call(model, (torch.arange(interactions.num_users, device=device),))
    if not is_factors(output):
        return
    tables = {
        "users": output["users"].float(),
        "items": output["items"].float(),
        "known_offsets": interactions.offsets,
        "known_items": interactions.items.int(),
    }
    write_tensors(folder / TABLES, tables)
    ids = {"users": list(interactions.user_ids), "items": list(interactions.item_ids)}
    write_json(folder / IDS, ids)


def read_recommender(folder: Path) -> Recommender:
    """Read what `write_recommender` wrote.

    Raises:
        UserError: If a file is missing or damaged, or the two do not belong together.
    """
    path = folder / TABLES
    if not path.is_file():
        raise UserError(f"{path} is missing; {FIX}")
    ids = read_json(folder / IDS, FIX)
    try:
        tables = load_file(path)
        users, items = _names(ids["users"]), _names(ids["items"])
        interactions = Interactions(
            tables["known_offsets"], tables["known_items"].long(), len(items), users, items
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{path} or {IDS} is damaged ({reason(error)}); {FIX}") from error
    if len(users) != len(tables["users"]) or len(items) != len(tables["items"]):
        raise UserError(f"{IDS} names other numbers of users and items than {path} has; {FIX}")
    if len(set(users)) < len(users) or len(set(items)) < len(items):
        raise UserError(f"{folder / IDS} names a user or an item twice; {FIX}")
    problem = _problem_of(tables["users"], tables["items"], interactions)
    if problem is not None:
        raise UserError(f"{path} is damaged, {problem}; {FIX}")
    return Recommender(tables["users"], tables["items"], interactions)


def _problem_of(users: Tensor, items: Tensor, interactions: Interactions) -> str | None:
    """Return what is wrong with the tables of a recommender, or None."""
    if not is_factors({"users": users, "items": items}):
        return f"its tables have shapes {tuple(users.shape)} and {tuple(items.shape)}"
    if not (users.isfinite().all() and items.isfinite().all()):
        return "its tables hold NaN or infinity"
    if not interactions.is_valid(len(users)):
        return "its lists of what users have do not fit its tables"
    return None


def _names(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, values))

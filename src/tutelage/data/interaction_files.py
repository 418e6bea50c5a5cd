"""Users and items from files: which user has which items, split into what is known and held out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tutelage.data._settings import check_share
from tutelage.data.base import Data
from tutelage.data.interaction_samples import HeldOutUsers, InteractionSamples
from tutelage.data.samples import Samples
from tutelage.data.sets._interaction_formats import RawInteractions, read_interactions
from tutelage.data.splits import SPLIT_SEED
from tutelage.errors import UserError
from tutelage.models.recommendation import Interactions, TakesInteractions

FileFormat = Literal["auto", "recbole", "movielens", "citeulike", "table"]


@dataclass(frozen=True)
class Split:
    """What every user has in training, what is held out, and who is evaluated where."""

    train: Interactions
    held_out: Interactions
    validation_users: Tensor
    test_users: Tensor


class InteractionFiles(Data):
    """Interactions of users and items in RecBole's, MovieLens', CiteULike's or a table's format.

    A pair of user and item counts once, however often it occurs, and with `min_rating` only from
    that rating on. For each user a random share of the items, rounded up, is held out, but never
    all; all other interactions train. Users are split into those whose held-out items validate and
    those whose test: both are trained on, and every user's training items stay the same.

    Args:
        root: a file, or a folder that holds one of these: `*.inter` (RecBole), `u.data`,
            `ratings.dat` or `ratings.csv` (MovieLens), `users.dat` (CiteULike), `*.csv`, `*.tsv` or
            `*.parquet`.
        format: of the file; "auto" goes by its name.
        user: column of the users, for a table; None takes the first known name, such as user_id.
        item: column of the items, as `user`.
        rating: column of the ratings, as `user`; a table may have none.
        min_rating: the least rating that counts as an interaction; None takes all ratings above 0.
        min_user_items: users with fewer items are left out, before the split.
        holdout: share of a user's items that is held out.
        validation_users: share of the users whose held-out items are for validation.
        split_seed: of what is held out and of the split of the users.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        root: str,
        format: FileFormat = "auto",
        user: str | None = None,
        item: str | None = None,
        rating: str | None = None,
        min_rating: float | None = None,
        min_user_items: int = 1,
        holdout: float = 0.2,
        validation_users: float = 0.5,
        split_seed: int = 0,
    ) -> None:
        if not isinstance(root, (str, PathLike)):
            raise UserError(f"data.root is a file or a folder, got {root!r}")
        for name, column in (("user", user), ("item", item), ("rating", rating)):
            if not isinstance(column, str | None):
                raise UserError(f"data.{name} is the name of a column, got {column!r}")
        check_share("data.holdout", holdout)
        check_share("data.validation_users", validation_users)
        is_count = isinstance(min_user_items, int) and not isinstance(min_user_items, bool)
        if not is_count or min_user_items < 1:
            raise UserError(
                f"data.min_user_items is a whole number from 1 on, got {min_user_items!r}"
            )
        if min_rating is not None and not is_finite_number(min_rating):
            raise UserError(f"data.min_rating is a finite number, got {min_rating!r}")
        if not isinstance(split_seed, int) or isinstance(split_seed, bool):
            raise UserError(f"data.split_seed is a whole number, got {split_seed!r}")
        self.root = root
        self.format: FileFormat = format
        self.user = user
        self.item = item
        self.rating = rating
        self.min_rating = min_rating
        self.min_user_items = min_user_items
        self.holdout = holdout
        self.validation_users = validation_users
        self.split_seed = split_seed
        self._split: Split | None = None

    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, Samples]:
        """Return `train`, `validation` and `test`.

        Raises:
            UserError: If the file is missing or damaged, or holds too little.
        """
        if num_labels is not None:
            raise UserError(
                "num_labels is for data with classes; interactions have none, leave it out"
            )
        split = self.split()
        return {
            "train": InteractionSamples(split.train, seed),
            "validation": HeldOutUsers(split.validation_users, split.train, split.held_out),
            "test": HeldOutUsers(split.test_users, split.train, split.held_out),
        }

    def split(self) -> Split:
        """Return the split; the file is read once."""
        if self._split is None:
            raw = read_interactions(
                Path(self.root).expanduser(),
                self.format,
                columns=(self.user, self.item, self.rating),
                min_rating=self.min_rating,
            )
            interactions = of_active_users(raw, self.min_user_items)
            self._split = split_interactions(
                interactions, self.holdout, self.validation_users, self.split_seed
            )
        return self._split

    def prepare_network(self, network: nn.Module) -> nn.Module:
        """Give a recommender the training interactions, which its tables and its graph come from.

        Raises:
            UserError: If its tables have other sizes.
        """
        if isinstance(network, TakesInteractions):
            network.set_interactions(self.split().train)
        return network

    def check_network(self, facts: Mapping[str, Any], where: str) -> None:
        """Refuse weights that were learned on other users or items, or on another split.

        Raises:
            UserError: If they were.
        """
        here = self._facts
        known = facts.get("interactions")
        if not isinstance(known, Mapping):
            return
        if known.get("ids") != here["ids"]:
            raise UserError(
                f"{where} was trained on other users or items ({known.get('users')} and "
                f"{known.get('items')}, here {here['users']} and {here['items']}), or on the "
                "same in another order, so that its rows would be taken for those of others; train "
                "it on this data, into another folder or after removing that one"
            )
        if known.get("train") != here["train"]:
            raise UserError(
                f"{where} was trained on other interactions of the same users and items, or on "
                "another split of these, so that it may know items that are held out here; train "
                "it on this data with the same holdout, split_seed and min_user_items, into "
                "another folder or after removing that one"
            )

    def input_info(self, network: nn.Module) -> dict[str, Any]:
        """Return what `student.json` says: the sizes, and digests of ids and interactions."""
        return {"interactions": self._facts}

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What every checkpoint says of the data, so the digests are made once."""
        train = self.split().train
        return {
            "users": train.num_users,
            "items": train.num_items,
            "ids": train.ids_digest(),
            "train": train.digest(),
        }


def is_finite_number(value: object) -> bool:
    """Return whether a setting is a number, and neither NaN nor infinity.

    >>> is_finite_number(4), is_finite_number("4")
    (True, False)
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]


def of_active_users(raw: RawInteractions, min_user_items: int) -> Interactions:
    """Return the interactions of users with enough items; what is merged or left out is said.

    Users and items are numbered in the order of their first appearance.

    Args:
        raw: as read.
        min_user_items: users with fewer different items are left out, with the items that only
            they have.

    Raises:
        UserError: If nobody is left.
    """
    whole = Interactions.of_pairs(raw.users, raw.items, len(raw.user_ids), len(raw.item_ids))
    repeated = len(raw.users) - len(whole)
    if repeated:
        warnings.warn(
            f"{raw.source}: {repeated} of {len(raw.users)} interactions are repetitions of a user "
            "and an item; each pair counts once",
            stacklevel=2,
        )
    active = whole.user_counts >= min_user_items
    kept = active[whole.users]
    users, items = whole.users[kept], whole.items[kept]
    if not len(users):
        raise UserError(
            f"{raw.source} has no user with at least {min_user_items} items; lower "
            "data.min_user_items, or check the file"
        )
    seen = torch.zeros(whole.num_items, dtype=torch.bool)
    seen[items] = True
    left_out = int((~active).sum())
    if left_out:
        warnings.warn(
            f"{raw.source}: {left_out} of {len(active)} users have fewer than {min_user_items} "
            f"items and are left out, with {int((~seen).sum())} items that only they have",
            stacklevel=2,
        )
    new_users = active.cumsum(0) - 1
    new_items = seen.cumsum(0) - 1
    return Interactions.of_pairs(
        new_users[users],
        new_items[items],
        int(active.sum()),
        int(seen.sum()),
        user_ids=[raw.user_ids[number] for number in active.nonzero().flatten().tolist()],
        item_ids=[raw.item_ids[number] for number in seen.nonzero().flatten().tolist()],
    )


def split_interactions(
    interactions: Interactions, holdout: float, validation_users: float, seed: int
) -> Split:
    """Hold out a share of every user's items, and split the users who have any held out.

    Args:
        interactions: of all users.
        holdout: share of a user's items, rounded up; at least one item of each user trains.
        validation_users: share of the users for validation.
        seed: of both.

    Raises:
        UserError: If fewer than two users have an item to hold out.
    """
    generator = torch.Generator().manual_seed((SPLIT_SEED * 1_000_003 + seed) % 2**63)
    counts = interactions.user_counts
    # A hundredth of a rounding error must not hold out one more: 0.1 · 30 is 3.0000000000000004.
    wanted = (counts.double() * holdout - 1e-9).ceil().long()
    held = torch.minimum(wanted, (counts - 1).clamp(min=0))
    order = torch.rand(len(interactions), generator=generator, dtype=torch.float64)
    by_user = torch.argsort(interactions.users + order)
    rank = torch.arange(len(interactions)) - interactions.offsets[interactions.users]
    is_held = torch.zeros(len(interactions), dtype=torch.bool)
    is_held[by_user] = rank < held[interactions.users]
    evaluated = (held > 0).nonzero().flatten()
    if len(evaluated) < 2:
        raise UserError(
            "fewer than two users have an item to hold out, so that nothing can be evaluated; give "
            "more data"
        )
    evaluated = evaluated[torch.randperm(len(evaluated), generator=generator)]
    count = min(max(1, round(validation_users * len(evaluated))), len(evaluated) - 1)
    return Split(
        train=_part(interactions, ~is_held),
        held_out=_part(interactions, is_held),
        validation_users=evaluated[:count].sort().values,
        test_users=evaluated[count:].sort().values,
    )


def _part(interactions: Interactions, mask: Tensor) -> Interactions:
    return Interactions.of_pairs(
        interactions.users[mask],
        interactions.items[mask],
        interactions.num_users,
        interactions.num_items,
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
    )

"""Which user has which items, and the scores that a recommender gives to all items of some users.

A recommender is a module whose forward takes user numbers (B,) int64 and returns a mapping with
either

    users (B, d), items (I, d)     factors, whose inner products are the scores
    scores (B, I)                  the scores themselves

and, for the regularization of what is trained, `user_rows` (B, d) and `item_rows` (I, d): rows of
the parameters, where they are not the factors themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tutelage.core.precision import full_precision, promote
from tutelage.errors import UserError
from tutelage.models.recommendation._rows import rows_of


@dataclass(frozen=True)
class Interactions:
    """The items of every user, as lists of different lengths in two tensors.

    >>> held = Interactions.of_pairs(torch.tensor([0, 2, 2]), torch.tensor([1, 0, 1]), 3, 2)
    >>> held.offsets.tolist(), held.items.tolist(), held.item_counts.tolist()
    ([0, 1, 1, 3], [1, 0, 1], [1, 2])

    Attributes:
        offsets: (U + 1,) int64; the items of user u are `items[offsets[u]:offsets[u + 1]]`.
        items: (N,) int64, ascending within a user.
        num_items: I, also of items that no user has.
        user_ids: what the users are called outside; their row numbers if the data does not say.
        item_ids: the same of the items.
    """

    offsets: Tensor
    items: Tensor
    num_items: int
    user_ids: Sequence[str] = ()
    item_ids: Sequence[str] = ()

    @classmethod
    def of_pairs(
        cls,
        users: Tensor,
        items: Tensor,
        num_users: int,
        num_items: int,
        *,
        user_ids: Sequence[str] = (),
        item_ids: Sequence[str] = (),
    ) -> Interactions:
        """Return the lists of (user, item) pairs; a pair that occurs several times counts once.

        Args:
            users: (N,) int64, 0 to num_users − 1, in any order.
            items: (N,) int64, 0 to num_items − 1.
            num_users: U.
            num_items: I.
            user_ids: outside names by number; the numbers themselves if there are none.
            item_ids: the same of the items.

        Raises:
            UserError: If a number is out of range.
        """
        for what, values, count in (("user", users, num_users), ("item", items, num_items)):
            wrong = values[(values < 0) | (values >= count)]
            if len(wrong):
                raise UserError(
                    f"the {what} number {int(wrong[0])} is out of range: there are {count} "
                    f"{what}s, numbered from 0 to {count - 1}"
                )
        keys = torch.unique(users.to(torch.int64) * num_items + items)
        counts = torch.bincount(keys // max(num_items, 1), minlength=num_users)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(
            offsets=offsets,
            items=keys % max(num_items, 1),
            num_items=num_items,
            user_ids=tuple(user_ids) or tuple(map(str, range(num_users))),
            item_ids=tuple(item_ids) or tuple(map(str, range(num_items))),
        )

    def is_valid(self, num_users: int) -> bool:
        """Return whether these are lists of items 0 to I − 1 for that many users."""
        ends = self.offsets.tolist()
        is_complete = len(ends) == num_users + 1 and ends[0] == 0 and ends[-1] == len(self.items)
        is_ascending = bool((self.offsets.diff() >= 0).all())
        is_known = bool(((self.items >= 0) & (self.items < self.num_items)).all())
        return is_complete and is_ascending and is_known

    def union(self, other: Interactions) -> Interactions:
        """Return what users have here or there; both are of the same users and items."""
        return Interactions.of_pairs(
            torch.cat([self.users, other.users]),
            torch.cat([self.items, other.items]),
            self.num_users,
            self.num_items,
            user_ids=self.user_ids,
            item_ids=self.item_ids,
        )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def num_users(self) -> int:
        """U, also of users who have no item."""
        return len(self.offsets) - 1

    @cached_property
    def user_counts(self) -> Tensor:
        """How many items every user has, (U,) int64."""
        return self.offsets.diff()

    @cached_property
    def item_counts(self) -> Tensor:
        """How many users have every item, (I,) int64."""
        return torch.bincount(self.items, minlength=self.num_items)

    @cached_property
    def users(self) -> Tensor:
        """The user of every entry of `items`, (N,) int64."""
        return torch.repeat_interleave(torch.arange(self.num_users), self.user_counts)

    @cached_property
    def keys(self) -> Tensor:
        """user · I + item of every interaction, (N,) int64, ascending."""
        return self.users * self.num_items + self.items

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Return which (user, item) pairs are among the interactions, a mask of their shape."""
        if not len(self):
            return torch.zeros_like(users * items, dtype=torch.bool)
        keys = users * self.num_items + items
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self) - 1)
        return self.keys[places] == keys

    def draw_others(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an item that the user does not have for each of some users, uniformly.

        The r-th item that a user does not have is r plus the number of the user's items e_0 < e_1 …
        with e_j − j ≤ r, so that nothing is drawn twice.

        >>> held = Interactions.of_pairs(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 1]), 2, 3)
        >>> held.draw_others(torch.tensor([0, 0]), torch.Generator()).tolist()
        [1, 1]

        Args:
            users: (N,) int64; none of them has all items.
            generator: of the draws.

        Returns:
            (N,) int64.
        """
        free = self.num_items - self.user_counts[users]
        # In double precision the product may round up to the number itself.
        drawn = (torch.rand(len(users), generator=generator, dtype=torch.float64) * free).long()
        drawn = torch.minimum(drawn, free - 1)
        within = torch.arange(len(self)) - self.offsets[self.users]
        smaller = torch.searchsorted(self.keys - within, users * self.num_items + drawn, right=True)
        return drawn + smaller - self.offsets[users]

    def of_users(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of some users as (row of `users`, item) of every interaction.

        Args:
            users: (B,) int64.

        Returns:
            rows (M,) and items (M,), both int64, in the order of the users.
        """
        counts = self.user_counts[users]
        rows = torch.repeat_interleave(torch.arange(len(users)), counts)
        ends = counts.cumsum(0)
        within = torch.arange(len(rows)) - torch.repeat_interleave(ends - counts, counts)
        return rows, self.items[self.offsets[users][rows] + within]

    def ids_digest(self) -> str:
        """Return a digest of the outside ids of users and items in the order of their numbers."""
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            digest.update("\0".join(ids).encode() + b"\0\0")
        return digest.hexdigest()[:16]

    def digest(self) -> str:
        """Return a digest of the interactions themselves, whatever users and items are called."""
        digest = hashlib.sha256(str(self.num_items).encode())
        for values in (self.offsets, self.items):
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()[:16]


@runtime_checkable
class HasInteractions(Protocol):
    """Training samples that know which user has which items, such as a data set of interactions."""

    interactions: Interactions
    seed: int

    def with_fields(self, fields: Callable[[int, Tensor], Mapping[str, Tensor]]) -> Any:
        """Return the samples with further fields in their batches.

        Args:
            fields: gives them, each with a row for every item of the batch, for an epoch and the
                user numbers (B,) of a batch.
        """
        ...


@runtime_checkable
class TakesInteractions(Protocol):
    """A recommender whose tables have the size of the data, or which reads its interactions."""

    def set_interactions(self, interactions: Interactions) -> None:
        """Make the network ready for the training interactions of a data set."""
        ...


def score_block(output: Any, *, of: str = "the network") -> Tensor:
    """Return the scores (B, I) of all items for the users of a recommender's output.

    >>> score_block({"users": torch.ones(2, 3), "items": torch.ones(4, 3)}).shape
    torch.Size([2, 4])

    Args:
        output: what a recommender's forward returned.
        of: whose output it is, for the message.

    Raises:
        UserError: If there are neither factors nor scores in it.
    """
    if isinstance(output, Mapping):
        scores = output.get("scores")
        if isinstance(scores, Tensor) and scores.ndim == 2:
            return scores
        if is_factors(output):
            product: Tensor = output["users"] @ output["items"].mT
            return product
    raise UserError(
        f"{of} gives a {type(output).__name__}; a recommender gives a mapping with 'users' (B, d) "
        "and 'items' (I, d), or with 'scores' (B, I), such as tutelage.models.BPRMF"
    )


def is_factors(output: Any) -> bool:
    """Return whether an output has factors of users and items of the same dimension."""
    if not isinstance(output, Mapping):
        return False
    users, items = output.get("users"), output.get("items")
    return (
        isinstance(users, Tensor)
        and isinstance(items, Tensor)
        and users.ndim == items.ndim == 2
        and users.shape[1] == items.shape[1]
    )


def item_scores(output: Any, items: Tensor, *, minus: Tensor | None = None) -> Tensor:
    """Return the scores of some items for each user of an output, without those of all items.

    >>> output = {"users": torch.ones(2, 3), "items": torch.eye(3)}
    >>> item_scores(output, torch.tensor([[0], [1]])).tolist()
    [[1.0], [1.0]]

    Args:
        output: what a recommender's forward returned.
        items: (B, P) int64.
        minus: (B, P) int64, items whose scores are subtracted; None subtracts nothing.

    Returns:
        (B, P), in float32 for half-precision factors and inside autocast.

    Raises:
        UserError: If there are neither factors nor scores in the output.
    """
    if not is_factors(output):
        scores = score_block(output)
        values = scores.gather(1, items)
        return values if minus is None else values - scores.gather(1, minus)
    users, table = promote(output["users"]), promote(output["items"])
    with full_precision(users.device):
        rows = rows_of(table, items)
        if minus is not None:
            # One product instead of two: u·a − u·b = u·(a − b).
            rows = rows - rows_of(table, minus)
        return (rows @ users.unsqueeze(2)).squeeze(2)

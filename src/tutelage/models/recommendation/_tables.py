"""Two trained tables, of users and of items, whose sizes may come from the data."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from tutelage.errors import UserError
from tutelage.models.recommendation.interactions import Interactions


class Tables(nn.Module):
    """A table of d numbers for every user, and one for every item.

    Without sizes, the data gives the tables their sizes; in both cases their first values depend on
    torch's random state when the network is made, and on nothing that is drawn later.

    Args:
        num_users: U; None leaves it to the data.
        num_items: I; None leaves it to the data.
        dim: d.

    Raises:
        UserError: If a size is no positive whole number, or one of two is missing.
    """

    def __init__(self, num_users: int | None, num_items: int | None, dim: int) -> None:
        super().__init__()
        name = type(self).__name__
        for what, size in (("num_users", num_users), ("num_items", num_items), ("dim", dim)):
            is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 1
            if not is_size and not (size is None and what != "dim"):
                raise UserError(f"{what} of {name} is a whole number from 1 on, got {size!r}")
        if (num_users is None) != (num_items is None):
            raise UserError(f"{name} takes both num_users and num_items, or none of them")
        self.dim = dim
        self._seed = int(torch.randint(2**62, (1,)))
        self.user_table = cast(nn.Parameter, UninitializedParameter())
        self.item_table = cast(nn.Parameter, UninitializedParameter())
        if num_users is not None and num_items is not None:
            self._make(num_users, num_items)

    @property
    def sizes(self) -> tuple[int, int] | None:
        """U and I, or None before they are known."""
        if isinstance(self.user_table, UninitializedParameter):
            return None
        return len(self.user_table), len(self.item_table)

    def set_interactions(self, interactions: Interactions) -> None:
        """Give the tables the sizes of the data.

        Raises:
            UserError: If they have others already.
        """
        wanted = (interactions.num_users, interactions.num_items)
        if self.sizes is None:
            self._make(*wanted)
        elif self.sizes != wanted:
            raise UserError(
                f"{type(self).__name__} has {self.sizes[0]} users and {self.sizes[1]} items, but "
                f"the data has {wanted[0]} and {wanted[1]}; leave num_users and num_items out, or "
                "give data with the same users and items"
            )

    def draw(self, table: Tensor, generator: torch.Generator) -> None:
        """Fill a table with its first values, in place."""
        raise NotImplementedError

    def check_users(self, users: Any) -> None:
        """Raise unless the input is a batch of user numbers, and the sizes are known."""
        name = type(self).__name__
        if self.sizes is None:
            raise UserError(
                f"{name} does not know how many users and items there are; give num_users and "
                "num_items, or call set_interactions"
            )
        is_numbers = isinstance(users, Tensor) and users.dtype == torch.int64 and users.ndim == 1
        if not is_numbers:
            raise UserError(f"{name} takes user numbers (B,) int64, from 0 on")

    def _make(self, num_users: int, num_items: int) -> None:
        generator = torch.Generator().manual_seed(self._seed)
        for name, rows in (("user_table", num_users), ("item_table", num_items)):
            old = getattr(self, name)
            table = torch.empty(rows, self.dim, device=old.device, dtype=old.dtype)
            with torch.no_grad():
                values = torch.empty(rows, self.dim)
                self.draw(values, generator)
                table.copy_(values)
            setattr(self, name, nn.Parameter(table, requires_grad=old.requires_grad))

    def extra_repr(self) -> str:
        """Show the sizes."""
        users, items = self.sizes or (None, None)
        return f"num_users={users}, num_items={items}, dim={self.dim}"

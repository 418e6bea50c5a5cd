"""LightGCN: factors that are averaged over the graph of users and items.

X. He, K. Deng, X. Wang, Y. Li, Y. Zhang, M. Wang, "LightGCN: Simplifying and Powering Graph
Convolution Network for Recommendation", SIGIR 2020, arXiv 2002.02126.

    E = 1/(L + 1) Σ_{l=0}^{L} Â^l E₀,     Â = D^-½ A D^-½

A is the adjacency of users and items by the training interactions, without self loops; D are the
degrees, 0 read as 1. A is bipartite, so Â E has two halves: R̂ E_items for the users and R̂ᵀ E_users
for the items, with R̂_ui = 1/√(d_u d_i) where user u has item i. R̂ and R̂ᵀ are sparse: with
CiteULike's 113 000 interactions they take 3 MB, where the dense Â of the official UnKD code takes
3.7 GB.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from tutelage.core.precision import full_precision
from tutelage.errors import UserError
from tutelage.models.recommendation._rows import rows_of
from tutelage.models.recommendation._tables import Tables
from tutelage.models.recommendation.interactions import Interactions


class LightGCN(Tables):
    """Tables of users and items, propagated over the graph of the training interactions.

    The graph is that of the data, and in no `state_dict`: call `set_interactions` before the first
    forward pass (a run does).

    >>> network = LightGCN(dim=3, layers=2)
    >>> held = Interactions.of_pairs(torch.tensor([0, 1]), torch.tensor([2, 0]), 2, 4)
    >>> network.set_interactions(held)
    >>> network(torch.tensor([1]))["items"].shape
    torch.Size([4, 3])

    Args:
        num_users: U; None takes it from the data.
        num_items: I; None takes it from the data.
        dim: d.
        layers: L, how often the vectors are passed along the graph.

    Raises:
        UserError: If a size is out of range.
    """

    def __init__(
        self,
        num_users: int | None = None,
        num_items: int | None = None,
        dim: int = 10,
        layers: int = 2,
    ) -> None:
        super().__init__(num_users, num_items, dim)
        if not isinstance(layers, int) or isinstance(layers, bool) or layers < 0:
            raise UserError(f"layers of LightGCN is a whole number from 0 on, got {layers!r}")
        self.layers = layers
        self._graph: Graph | None = None

    def set_interactions(self, interactions: Interactions) -> None:
        """Give the tables the sizes of the data, and read its graph.

        Raises:
            UserError: If the tables have other sizes already.
        """
        super().set_interactions(interactions)
        self._graph = Graph.of(interactions)

    def forward(self, users: Tensor) -> dict[str, Tensor]:
        """Return the vectors of some users and of all items, and the table rows they are made of.

        Raises:
            UserError: If the input is no user numbers, or the graph is missing.
        """
        self.check_users(users)
        all_users, items = self.propagated()
        return {
            "users": rows_of(all_users, users),
            "items": items,
            "user_rows": rows_of(self.user_table, users),
            "item_rows": self.item_table,
        }

    def propagated(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users (U, d) and all items (I, d).

        Raises:
            UserError: If the graph is missing.
        """
        if self._graph is None:
            raise UserError(
                "LightGCN has no graph yet; call set_interactions with the training interactions"
            )
        # Sparse products have no half-precision form on every device.
        with full_precision(self.user_table.device):
            self._graph = self._graph.to(self.user_table)
            rows: Tensor = _Mean.apply(
                torch.cat([self.user_table, self.item_table]), self._graph, self.layers
            )
        return rows[: len(self.user_table)], rows[len(self.user_table) :]

    def draw(self, table: Tensor, generator: torch.Generator) -> None:
        """Fill a table from N(0, 0.1²)."""
        nn.init.normal_(table, std=0.1, generator=generator)

    def extra_repr(self) -> str:
        """Show sizes and layers."""
        return f"{super().extra_repr()}, layers={self.layers}"


class Graph:
    """The normalized adjacency Â of a bipartite graph, as two sparse matrices in CSR form.

    Args:
        to_users: R̂ (U, I).
        to_items: R̂ᵀ (I, U).
    """

    def __init__(self, to_users: Tensor, to_items: Tensor) -> None:
        self.to_users = to_users
        self.to_items = to_items

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        """Return itself: nothing changes a graph, and torch cannot copy CSR tensors this way."""
        return self

    @classmethod
    def of(cls, interactions: Interactions) -> Graph:
        """Return the graph of a data set's training interactions, in float64."""
        users, items = interactions.users, interactions.items
        scale = [
            counts.clamp(min=1).double().rsqrt()
            for counts in (interactions.user_counts, interactions.item_counts)
        ]
        values = scale[0][users] * scale[1][items]
        shape = (interactions.num_users, interactions.num_items)
        order = torch.argsort(items, stable=True)
        ends = interactions.item_counts.cumsum(0)
        return cls(
            to_users=_csr(interactions.offsets, items, values, shape),
            to_items=_csr(
                torch.cat([ends.new_zeros(1), ends]), users[order], values[order], shape[::-1]
            ),
        )

    def to(self, like: Tensor) -> Graph:
        """Return the graph on the device and in the precision of a tensor; itself if it is."""
        if self.to_users.device == like.device and self.to_users.dtype == like.dtype:
            return self
        return Graph(
            self.to_users.to(like.device, like.dtype), self.to_items.to(like.device, like.dtype)
        )

    def mean(self, rows: Tensor, layers: int) -> Tensor:
        """Return 1/(L + 1) Σ Â^l E for E (U + I, d)."""
        num_users = self.to_users.shape[0]
        total = rows.clone()
        for _ in range(layers):
            rows = torch.cat([self.to_users @ rows[num_users:], self.to_items @ rows[:num_users]])
            total += rows
        return total / (layers + 1)


class _Mean(Function):
    """`Graph.mean` with its gradient: Â is symmetric, so that the gradient is the same mean."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, graph: Graph, layers: int) -> Tensor:
        ctx.graph = graph
        ctx.layers = layers
        return graph.mean(rows, layers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Mean.apply(gradient, ctx.graph, ctx.layers), None, None


def _csr(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():  # that CSR tensors are in beta
        warnings.simplefilter("ignore")
        return torch.sparse_csr_tensor(offsets, columns, values, shape)

"""Matrix factorization for BPR: a vector for every user and item, scores are inner products.

S. Rendle, C. Freudenthaler, Z. Gantner, L. Schmidt-Thieme, "BPR: Bayesian Personalized Ranking from
Implicit Feedback", UAI 2009, arXiv 1205.2618.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.models.recommendation._rows import rows_of
from tutelage.models.recommendation._tables import Tables


class BPRMF(Tables):
    """Two tables of d numbers a row; the score of an item is its row times the user's.

    >>> network = BPRMF(num_users=5, num_items=7, dim=3)
    >>> output = network(torch.tensor([0, 4]))
    >>> output["users"].shape, output["items"].shape
    (torch.Size([2, 3]), torch.Size([7, 3]))

    Args:
        num_users: U; None takes it from the data.
        num_items: I; None takes it from the data.
        dim: d.
    """

    def __init__(
        self,
        num_users: int | None = None,
        num_items: int | None = None,
        dim: int = 10,
    ) -> None:
        super().__init__(num_users, num_items, dim)

    def forward(self, users: Tensor) -> dict[str, Tensor]:
        """Return the rows of some users (B, d), and those of all items (I, d).

        Raises:
            UserError: If the input is no user numbers.
        """
        self.check_users(users)
        return {"users": rows_of(self.user_table, users), "items": self.item_table}

    def draw(self, table: Tensor, generator: torch.Generator) -> None:
        """Fill a table by Xavier's uniform law."""
        bound = (6 / sum(table.shape)) ** 0.5
        nn.init.uniform_(table, -bound, bound, generator=generator)

"""The student without a teacher: the baseline that every claim of *better* is measured against."""

from __future__ import annotations

from torch import Tensor

from tutelage.core import Method, Step
from tutelage.core.method import Card


class Alone(Method):
    """Train the student on its labels; no term besides `task`.

    >>> Alone()
    Alone()
    """

    card = Card(
        paper="none: the baseline of every comparison",
        tasks="all",
        needs="no teacher; one that is given is only compared with at the end",
    )
    listens = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return no terms."""
        return {}

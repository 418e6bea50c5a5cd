"""Where `tutelage tune` looks for the value of an argument of a method.

A method lists the ranges of its own arguments in its attribute `search_space`. All values are
positive, and drawn evenly on a logarithmic scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from tutelage.errors import UserError


class SearchRange(Protocol):
    """The range of one argument.

    Attributes:
        name: of the argument in the method's constructor.
    """

    @property
    def name(self) -> str:
        """Name of the argument."""

    def bounds(self, own: float) -> tuple[float, float]:
        """Return the lowest and the highest value.

        Args:
            own: the recipe's value, which is within them.
        """


@dataclass(frozen=True)
class Between:
    """From one value to another, wherever the recipe's lies; one outside extends the range.

    For what means the same in every setting, such as a temperature.

    >>> Between("temperature", 1.0, 8.0).bounds(4.0), Between("temperature", 1.0, 8.0).bounds(10.0)
    ((1.0, 8.0), (1.0, 10.0))

    Args:
        name: of the argument.
        low: the lowest value, above 0.
        high: the highest value.

    Raises:
        UserError: If there is nothing between the two.
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise UserError(
                f"the range of {self.name} goes from a positive value to a larger one, got "
                f"{self.low} and {self.high}"
            )

    def bounds(self, own: float) -> tuple[float, float]:
        """Return the lowest and the highest value."""
        return min(self.low, own), max(self.high, own)


@dataclass(frozen=True)
class Around:
    """Around the recipe's value, from a fraction of it to a multiple.

    For weights, whose scale depends on networks and layers.

    >>> Around("weight", 10.0).bounds(2.0)
    (0.2, 20.0)

    Args:
        name: of the argument.
        factor: how many times the recipe's value the highest is, and the lowest part of it.

    Raises:
        UserError: If the factor is not above 1.
    """

    name: str
    factor: float

    def __post_init__(self) -> None:
        if not 1 < self.factor < math.inf:
            raise UserError(
                f"the range of {self.name} reaches to a multiple of the recipe's value: its factor "
                f"is above 1, got {self.factor}"
            )

    def bounds(self, own: float) -> tuple[float, float]:
        """Return the lowest and the highest value."""
        return own / self.factor, own * self.factor

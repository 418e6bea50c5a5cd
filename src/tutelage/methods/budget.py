"""Several narrow copies of one network for the price of the network: widths by a formula, the price by counting.

A stack of convolutions costs about the square of its width. With a share ρ of the multiply-adds for K assistants,

    w_S = √(1 - ρ),   w_A = √(ρ / K)

The formula is only where the search starts: rounding can exceed the budget, so all widths shrink by a common factor
until the *measured* total is no more than the given network's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutelage.core.eval_mode import eval_mode
from tutelage.errors import UserError
from tutelage.methods.narrow import narrow

SHRINK = 0.995


class Cost(NamedTuple):
    """What a network costs: parameters, and multiply-adds for one image (0 where none is given)."""

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Budget:
    """How a network's budget is shared out.

    >>> [round(w, 3) for w in Budget(share=0.2).widths]
    [0.894, 0.447]

    Args:
        share: part of the budget, between 0 and 1, that all assistants have together.
        assistants: how many, K.
        multiple: of which all numbers of channels are; 8 suits a GPU.
        image: (C, H, W); hold the multiply-adds to the network's as well. None holds the parameters alone.
    """

    share: float = 0.2
    assistants: int = 1
    multiple: int = 1
    image: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"share is the assistants' part of the budget, between 0 and 1, got {self.share}")
        for name, value in (("assistants", self.assistants), ("multiple", self.multiple)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is a whole number from 1 on, got {value!r}")
        if self.image is not None and not _three_numbers(self.image):
            raise UserError(f"image is (channels, height, width), got {self.image!r}")

    @property
    def widths(self) -> list[float]:
        """The width of the student and of every assistant, as shares of the given one."""
        return [math.sqrt(1 - self.share)] + [math.sqrt(self.share / self.assistants)] * self.assistants

    @property
    def members(self) -> list[str]:
        """How a `ResidualPair` names the student and the assistants."""
        return ["student", *(f"assistants.{k}" for k in range(self.assistants))]


def _three_numbers(image: object) -> bool:
    return isinstance(image, Sequence) and len(image) == 3 and all(isinstance(size, int) for size in image)


def split(network: nn.Module, budget: Budget) -> list[nn.Module]:
    """Return a student and its assistants, narrow copies (`narrow`) that together cost no more than `network`.

    >>> from tutelage.models import small_cnn
    >>> network = small_cnn(width=10)
    >>> parts = split(network, Budget(share=0.2, image=(1, 28, 28)))
    >>> [part.get_submodule("stage1.0").out_channels for part in (network, *parts)]
    [10, 9, 4]
    >>> cost(network, (1, 28, 28)), sum(cost(part).parameters for part in parts)
    (Cost(parameters=9640, multiply_adds=776560), 9272)
    """
    bare = copy.deepcopy(network).to("meta")
    most, scale = cost(bare, budget.image), 1.0
    while True:
        parts = [narrow(bare, scale * width, budget.multiple) for width in budget.widths]
        fits = sum(cost(part).parameters for part in parts) <= most.parameters
        if fits and sum(cost(part, budget.image).multiply_adds for part in parts) <= most.multiply_adds:
            return [narrow(network, scale * width, budget.multiple) for width in budget.widths]
        scale *= SHRINK


@torch.no_grad()
def cost(network: nn.Module, image: Sequence[int] | None = None) -> Cost:
    """Count what a network costs; multiply-adds of convolutions and linear layers, by hooks, without computing.

    >>> cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 2)), (3, 4, 4))
    Cost(parameters=242, multiply_adds=1856)
    """
    parameters, counted = sum(p.numel() for p in network.parameters()), []
    if image is None:
        return Cost(parameters, 0)

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counted.append(output.numel() * layer.get_parameter("weight")[0].numel())

    bare = copy.deepcopy(network).to("meta")
    for layer in bare.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    try:
        with eval_mode(bare):
            bare(torch.empty(1, *image, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"a {type(network).__name__} fails on an image {tuple(image)}: {str(error).splitlines()[0]}; check image; "
            "a network that joins or cuts channels at fixed numbers cannot be narrowed"
        ) from error
    return Cost(parameters, sum(counted))

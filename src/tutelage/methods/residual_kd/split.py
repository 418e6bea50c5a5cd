"""Split a network into several narrow copies that together cost no more than it.

A stack of convolutions costs about the square of its width. With a share ρ of the multiply-adds for
K assistants, the widths of the student and of each assistant are

    w_S = √(1 - ρ),   w_A = √(ρ / K)

The formula is only where the search starts. Rounding can exceed the budget, so all widths shrink by
a common factor until the *measured* total is no more than the network's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutelage.core.modes import eval_mode
from tutelage.core.taps import FeatureTaps
from tutelage.errors import UserError
from tutelage.methods.residual_kd.width import scale_width

SHRINK = 0.995
"""The factor by which all widths shrink until the budget holds."""


class Cost(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: number of its parameters.
        multiply_adds: for one input; 0 where no input shape is known.
    """

    parameters: int
    multiply_adds: int


def check_student_layers(student: nn.Module, layers: Sequence[str]) -> None:
    """Raise if a layer is not in the network that is split; its parts have other names.

    >>> check_student_layers(nn.Sequential(nn.ReLU()), ["1"])
    Traceback (most recent call last):
    tutelage.errors.UserError: a layer of the student: no module '1' in Sequential; known are ['0']
    """
    try:
        FeatureTaps(student, layers).remove()
    except UserError as error:
        raise UserError(f"a layer of the student: {error}") from error


def check_budget(
    share: float, num_assistants: int, channel_multiple: int, input_shape: object
) -> None:
    """Raise unless a student can be split like that; see `split_student`.

    >>> check_budget(1.5, 1, 1, None)
    Traceback (most recent call last):
    tutelage.errors.UserError: share is the assistants' part of the budget, between 0 and 1, got 1.5
    """
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise UserError(
            f"share is the assistants' part of the budget, between 0 and 1, got {share}"
        )
    if not isinstance(num_assistants, int) or num_assistants < 1:
        raise UserError(f"num_assistants is a whole number from 1 on, got {num_assistants!r}")
    if not isinstance(channel_multiple, int) or channel_multiple < 1:
        raise UserError(f"channel_multiple is a whole number from 1 on, got {channel_multiple!r}")
    if input_shape is not None and not _is_image_shape(input_shape):
        raise UserError(f"input_shape is (channels, height, width), got {input_shape!r}")


def member_widths(share: float, num_assistants: int) -> list[float]:
    """Return the widths of the student and of every assistant, as shares of the network's.

    >>> [round(width, 3) for width in member_widths(0.2, num_assistants=1)]
    [0.894, 0.447]

    Args:
        share: ρ, the part of the budget that all assistants have together.
        num_assistants: K.
    """
    student_width = math.sqrt(1 - share)
    assistant_width = math.sqrt(share / num_assistants)
    return [student_width] + [assistant_width] * num_assistants


def split_student(
    network: nn.Module,
    *,
    share: float = 0.2,
    num_assistants: int = 1,
    channel_multiple: int = 1,
    input_shape: tuple[int, int, int] | None = None,
) -> list[nn.Module]:
    """Return a student and its assistants: narrow copies that together cost no more than `network`.

    >>> from tutelage.models import small_cnn
    >>> network = small_cnn(width=10)
    >>> members = split_student(network, share=0.2, input_shape=(1, 28, 28))
    >>> [member.get_submodule("stage1.0").out_channels for member in (network, *members)]
    [10, 9, 4]
    >>> cost(network, (1, 28, 28)), sum(cost(member).parameters for member in members)
    (Cost(parameters=9640, multiply_adds=776560), 9272)

    Args:
        network: the student as it was given; it stays as it is.
        share: part of the budget, between 0 and 1, that all assistants have together.
        num_assistants: how many of them there are.
        channel_multiple: all numbers of channels are multiples of it; 8 suits a GPU.
        input_shape: (C, H, W), to hold the multiply-adds to the network's as well; None holds the
            parameters alone.

    Raises:
        UserError: If the network cannot be made narrower, see `scale_width`, or if it does not
            take inputs of that shape.
    """
    check_budget(share, num_assistants, channel_multiple, input_shape)
    widths = member_widths(share, num_assistants)
    # The search needs shapes only, so it runs on a copy without memory.
    meta_network = copy.deepcopy(network).to("meta")
    budget = cost(meta_network, input_shape)
    factor = 1.0
    while True:
        members = [
            scale_width(meta_network, factor * width, channel_multiple=channel_multiple)
            for width in widths
        ]
        if _fits(members, budget, input_shape):
            break
        factor *= SHRINK
    return [
        scale_width(network, factor * width, channel_multiple=channel_multiple) for width in widths
    ]


@torch.no_grad()
def cost(network: nn.Module, input_shape: Sequence[int] | None = None) -> Cost:
    """Count a network's parameters, and the multiply-adds of its convolutions and linear layers.

    Hooks count what runs, on a copy without memory, so nothing is computed.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 2))
    >>> cost(net, (3, 4, 4))
    Cost(parameters=242, multiply_adds=1856)

    Args:
        network: any module.
        input_shape: (C, H, W) of one input; None counts the parameters alone.

    Raises:
        UserError: If the network does not take such an input.
    """
    parameters = sum(p.numel() for p in network.parameters())
    if input_shape is None:
        return Cost(parameters, 0)
    multiply_adds: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # Every output value takes one product with each weight of its channel.
        multiply_adds.append(output.numel() * layer.get_parameter("weight")[0].numel())

    meta_network = copy.deepcopy(network).to("meta")
    for layer in meta_network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    try:
        with eval_mode(meta_network):
            meta_network(torch.empty(1, *input_shape, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"a {type(network).__name__} fails on an image {tuple(input_shape)}: "
            f"{str(error).splitlines()[0]}; check input_shape; a network that joins or cuts "
            "channels at fixed numbers cannot be made narrower"
        ) from error
    return Cost(parameters, sum(multiply_adds))


def _fits(members: Sequence[nn.Module], budget: Cost, input_shape: Sequence[int] | None) -> bool:
    # Parameters first: counting multiply-adds runs every member once.
    if sum(cost(member).parameters for member in members) > budget.parameters:
        return False
    total = sum(cost(member, input_shape).multiply_adds for member in members)
    return total <= budget.multiply_adds


def _is_image_shape(shape: object) -> bool:
    return (
        isinstance(shape, Sequence)
        and len(shape) == 3
        and all(isinstance(size, int) for size in shape)
    )

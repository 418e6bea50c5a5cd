"""Small questions about a network: in which mode it is, and on which device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode within the block, then restore the mode of every submodule.

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with eval_mode(network):
    ...     network.training
    False
    >>> [module.training for module in network.modules()]
    [True, True, False]
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's first parameter; the CPU if it has no parameters.

    >>> device_of(nn.Linear(2, 2)), device_of(nn.Identity())
    (device(type='cpu'), device(type='cpu'))
    """
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device

"""Eval mode for a while: every submodule gets back the mode it had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode within the block, and every submodule back into its own mode, also after an error.

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
        for module, mode in modes:
            module.training = mode

"""Where a network lies."""

from __future__ import annotations

import torch
from torch import nn


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's first parameter lies; the CPU for a network without parameters.

    >>> device_of(nn.Linear(2, 2)), device_of(nn.Identity())
    (device(type='cpu'), device(type='cpu'))
    """
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device

"""Computing losses in float32 whatever the precision around them.

`.float()` alone does not protect a matrix product: inside autocast it is computed in half
precision all the same. Losses therefore leave autocast and promote their inputs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off for this device.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    if torch.is_autocast_enabled(device.type):
        return cast("AbstractContextManager[None]", torch.autocast(device.type, enabled=False))
    return nullcontext()


def promote(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32; leave float32 and float64 as they are.

    >>> half, double = torch.ones(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.float64)
    >>> promote(half).dtype, promote(double).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

"""Computing losses in float32 whatever the precision around them.

`.float()` alone does not protect a matrix product: inside autocast it is computed in half
precision all the same. Losses therefore leave autocast and promote their inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import cast

import torch
from torch import Tensor

_LEFT_AUTOCAST = ContextVar("left_autocast", default=False)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off for this device.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    autocast_off = torch.autocast(device.type, enabled=False)
    if torch.compiler.is_compiling():  # a compiled graph cannot set a context variable
        return cast("AbstractContextManager[None]", autocast_off)
    return _noted(autocast_off)


def left_autocast() -> bool:
    """Return whether autocast was, or may have been, on before `full_precision` turned it off.

    `backward` may then run inside autocast too, where it would form products in half precision.

    >>> left_autocast()
    False
    """
    return torch.compiler.is_compiling() or _LEFT_AUTOCAST.get()


@contextmanager
def _noted(autocast_off: AbstractContextManager[object]) -> Iterator[None]:
    token = _LEFT_AUTOCAST.set(True)
    try:
        with autocast_off:
            yield
    finally:
        _LEFT_AUTOCAST.reset(token)


def promote(x: Tensor) -> Tensor:
    """Return half-precision tensors as float32; leave float32 and float64 as they are.

    >>> half, double = torch.ones(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.float64)
    >>> promote(half).dtype, promote(double).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

"""Computing losses in float32 whatever the precision around them.

`.float()` alone does not protect a matrix product: inside autocast it is computed in half
precision all the same, and on recent GPUs in TF32, which keeps three digits, where that is allowed.
Losses therefore leave autocast, promote their inputs, and form their products in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor

from tutelage.core._float32 import are_of_products, shortcuts, without

HALF = (torch.float16, torch.bfloat16)
_LEFT_AUTOCAST = ContextVar("left_autocast", default=False)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which autocast is off for this device, and TF32 is not used.

    A compiled graph keeps the setting of float32 products with which it runs.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(torch.device("cpu")):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    autocast_on = torch.is_autocast_enabled(device.type)
    if torch.compiler.is_compiling():  # a compiled graph cannot set a context variable
        if not autocast_on:
            return nullcontext()
        autocast_off = torch.autocast(device.type, enabled=False)
        return cast("AbstractContextManager[None]", autocast_off)
    found = shortcuts(device.type)
    if not autocast_on and not found:
        return nullcontext()
    return _in_full(device, autocast_on, found)


def left_autocast() -> bool:
    """Return whether `full_precision` has turned, or may have turned, something off.

    `backward` may then run inside autocast or with TF32, and would form products with less.

    >>> left_autocast()
    False
    """
    return torch.compiler.is_compiling() or _LEFT_AUTOCAST.get()


@contextmanager
def _in_full(
    device: torch.device, autocast_on: bool, found: list[tuple[Any, str]]
) -> Iterator[None]:
    is_left = _LEFT_AUTOCAST.get() or autocast_on or are_of_products(found)
    token = _LEFT_AUTOCAST.set(is_left)
    autocast_off = torch.autocast(device.type, enabled=False) if autocast_on else nullcontext()
    try:
        with autocast_off, without(found):
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

"""Which hardware shortcuts float32 products take, and how to do without them for a while.

On recent GPUs "float32" products may be formed in TF32, which keeps 10 bits of every factor: matrix
products where `torch.set_float32_matmul_precision` allows it, convolutions unless it is off for
cuDNN. Some processors do the same with bfloat16. A similarity of features with a common offset
loses all its digits that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

FULL = ("ieee", "none")  # `none` is the default of what has no shortcut by default
BACKENDS: Any = torch.backends
# torch < 2.9 has a flag for GPUs alone.
HAS_NAMES = hasattr(BACKENDS.cuda.matmul, "fp32_precision")


def shortcuts(device_type: str) -> list[tuple[Any, str]]:
    """Return what forms float32 products on a device with less, and what it is set to.

    >>> shortcuts("cpu")
    []

    Args:
        device_type: such as "cuda".
    """
    if not HAS_NAMES:
        flags = [BACKENDS.cuda.matmul, BACKENDS.cudnn] if device_type == "cuda" else []
        return [(owner, "tf32") for owner in flags if owner.allow_tf32]
    found = []
    for owner in _owners(device_type):
        precision = owner.fp32_precision
        if precision not in FULL:
            found.append((owner, precision))
    return found


def are_of_products(found: list[tuple[Any, str]]) -> bool:
    """Return whether matrix products are among them, not only convolutions."""
    products = (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul)
    return any(owner in products for owner, _ in found)


@contextmanager
def without(found: list[tuple[Any, str]]) -> Iterator[None]:
    """Switch shortcuts off, and on again at the end; they are settings of the whole process."""
    try:
        for owner, _ in found:
            _set(owner, "ieee")
        yield
    finally:
        for owner, precision in found:
            _set(owner, precision)


def _owners(device_type: str) -> tuple[Any, ...]:
    if device_type == "cuda":
        return BACKENDS.cuda.matmul, BACKENDS.cudnn.conv
    if device_type == "cpu":
        return BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv
    return ()


def _set(owner: Any, precision: str) -> None:
    if HAS_NAMES:
        owner.fp32_precision = precision
    else:
        owner.allow_tf32 = precision == "tf32"

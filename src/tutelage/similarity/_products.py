"""Matrix products whose gradients are in full precision wherever `backward` is called.

A loss leaves autocast, but its backward pass runs later: `loss.backward()` inside autocast would
form the products of the gradient in half precision.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from tutelage.core.precision import full_precision, left_autocast


class _Gram(Function):
    """x xᵀ with one product in its backward pass instead of two."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x @ x.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x: Tensor
        (x,) = ctx.saved_tensors
        # Autograd would form G x and Gᵀ x, one for each factor.
        with full_precision(grad.device):
            return (grad + grad.mT) @ x


def gram(x: Tensor) -> Tensor:
    """Return the Gram matrix of the rows, K = x xᵀ.

    >>> gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    tensor([[5., 6.],
            [6., 9.]])

    Args:
        x: (..., N, P).

    Returns:
        (..., N, N).
    """
    return cast(Tensor, _Gram.apply(x)) if x.requires_grad else x @ x.mT


class _Matmul(Function):
    """a b, whose backward pass leaves autocast too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        # `backward` may be called inside autocast, which the loss had left.
        with full_precision(grad.device):
            d_a = matmul(grad, b.mT) if ctx.needs_input_grad[0] else None
            d_b = matmul(a.mT, grad) if ctx.needs_input_grad[1] else None
        return d_a, d_b


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return a b, with a gradient in full precision even if `backward` runs inside autocast.

    >>> matmul(torch.ones(2, 3), torch.ones(3, 1)).flatten()
    tensor([3., 3.])

    Args:
        a: (..., N, M).
        b: (..., M, P), with the leading dimensions of `a`.
    """
    # A function in Python costs some microseconds more than torch's own product.
    if left_autocast() and torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return cast(Tensor, _Matmul.apply(a, b))
    return a @ b


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which sums are formed on a device: float64 where the device has it.

    >>> sum_dtype(torch.device("cpu")), sum_dtype(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if device.type == "mps" else torch.float64


def may_read(x: Tensor) -> bool:
    """Return whether values of x may decide, in a training step, how to go on.

    Reading a value makes an accelerator wait for all that it was given to do.

    >>> may_read(torch.ones(1)), may_read(torch.ones(1, device="meta"))
    (True, False)
    """
    return x.device.type == "cpu"

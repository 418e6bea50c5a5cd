"""Gradients that can be used, but not differentiated again."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function


class _Once(Function):
    """The identity, whose backward pass is an error."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError(
            "the alignment's hand-written gradient cannot be differentiated again; call backward "
            "without create_graph, or use estimator='debiased', which autograd differentiates"
        )


def once(grad: Tensor | None) -> Tensor | None:
    """Return a gradient that refuses to be differentiated, where a graph of it is recorded.

    `once_differentiable` of torch says nothing if the gradient that came in is a constant, as that
    of `value.backward()`: a second derivative is silently 0.
    """
    if grad is None or not torch.is_grad_enabled():
        return grad
    return cast(Tensor, _Once.apply(grad.detach().requires_grad_()))

"""Gradients that can be used, but not differentiated again."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function


class _Once(Function):
    """The first tensor, whose backward pass is an error."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *sources: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise RuntimeError(
            "the alignment's hand-written gradient cannot be differentiated again; call backward "
            "without create_graph, or use estimator='debiased', which autograd differentiates"
        )


def once(grad: Tensor | None, *sources: Tensor | None) -> Tensor | None:
    """Return a gradient that refuses to be differentiated, if a graph of it is recorded.

    `once_differentiable` of torch says nothing if the gradient that came in is a constant, as that
    of `value.backward()`: a second derivative is silently 0.

    Args:
        grad: the gradient.
        sources: what it depends on; who asks for a derivative for one of these gets the message.
    """
    if grad is None or not torch.is_grad_enabled():
        return grad
    connected = [source for source in sources if source is not None and source.requires_grad]
    return cast(Tensor, _Once.apply(grad.detach().requires_grad_(), *connected))

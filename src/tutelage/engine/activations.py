"""How much memory a network keeps between its forward and its backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from tutelage.core._second_pass import undisturbed
from tutelage.core.taps import call


def activation_bytes(network: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Return the bytes that one pass in train mode keeps for its backward pass.

    Weights and inputs are not counted. Buffers and the random state stay as they are.

    >>> network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> activation_bytes(network, (torch.ones(3, 4),))  # 3 × 8 numbers of 4 bytes
    96

    Args:
        network: any module.
        inputs: the positional arguments of its forward.
    """
    others = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    others |= {buffer.untyped_storage().data_ptr() for buffer in network.buffers()}
    others |= {x.untyped_storage().data_ptr() for x in inputs if isinstance(x, Tensor)}
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in others:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    was_training = network.training
    network.train()
    try:
        with undisturbed(network), torch.enable_grad(), saved_tensors_hooks(count, lambda x: x):
            output = call(network, inputs)
    finally:
        network.train(was_training)
    del output
    return sum(sizes.values())

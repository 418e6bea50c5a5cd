"""Each network keeps its own input normalisation: images travel as [0, 1] pixels, and networks shift and scale them.

Teacher and student can then want different statistics (ImageNet's, 0.5/0.5 of many ViTs) and still see the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.errors import UserError

MEAN, STD = "pixel_mean", "pixel_std"


def normalize_inputs(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Make `network` compute `network((images - mean) / std)`; returns the same network.

    The statistics become two non-persistent buffers, so the `state_dict` and the names of the submodules stay as
    they are; they lie where its parameters do. Calling it again replaces the statistics.

    >>> net = normalize_inputs(nn.Identity(), mean=[0.5], std=[0.25])
    >>> net(torch.ones(1, 1, 1, 1)).item()
    2.0

    Args:
        network: takes images of shape (N, C, H, W), values in [0, 1].
        mean, std: one number per channel, in units of [0, 1] pixels.

    Raises:
        UserError: unequal lengths, or a standard deviation that is not positive; when called, another channel count.
    """
    if len(mean) != len(std) or not mean:
        raise UserError(f"mean has {len(mean)} channels and std {len(std)}; give one number per channel to both")
    if min(std) <= 0:
        raise UserError(f"std must be positive in every channel, got {list(std)}")
    first = MEAN not in dict(network.named_buffers(recurse=False))
    parameter = next(network.parameters(), None)
    for name, numbers in ((MEAN, mean), (STD, std)):
        made = torch.tensor(numbers, device=None if parameter is None else parameter.device)
        network.register_buffer(name, made.view(-1, 1, 1), persistent=False)
    if first:
        network.register_forward_pre_hook(_normalize)
    return network


def normalization(network: nn.Module) -> tuple[list[float], list[float]] | None:
    """Return (mean, std) that `normalize_inputs` gave a network, or None."""
    buffers = dict(network.named_buffers(recurse=False))
    if MEAN not in buffers:
        return None
    return [round(v, 7) for v in buffers[MEAN].flatten().tolist()], [
        round(v, 7) for v in buffers[STD].flatten().tolist()
    ]


def _normalize(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = inputs
    mean, std = cast("Tensor", network.pixel_mean), cast("Tensor", network.pixel_std)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != mean.shape[0]:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"the network expects images (N, {mean.shape[0]}, H, W), got {shape}; check channels and mean/std"
        )
    return ((images - mean) / std, *rest)

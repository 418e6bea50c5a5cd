"""Input normalization that belongs to a network: images travel as [0, 1] pixels.

Teacher and student can want different statistics (ImageNet's, or the 0.5/0.5 of many ViTs) and
still see the same batch, because each network shifts and scales its own inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tutelage.core.modes import device_of
from tutelage.errors import UserError

MEAN = "pixel_mean"
STD = "pixel_std"

COMMON_STATISTICS = {
    "0.5/0.5": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "ImageNet's": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "none": ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
}
"""The (mean, std) that most networks were trained with."""


def normalize_inputs(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Make `network` compute `network((images - mean) / std)`; return the same network.

    The statistics are two non-persistent buffers on the network's device, so its `state_dict` and
    the names of its submodules stay as they are. Calling it again replaces the statistics.

    >>> network = normalize_inputs(nn.Identity(), mean=[0.5], std=[0.25])
    >>> network(torch.ones(1, 1, 1, 1)).item()
    2.0

    Args:
        network: takes images (N, C, H, W) with values in [0, 1].
        mean: one number per channel, in units of [0, 1] pixels.
        std: one positive number per channel.

    Raises:
        UserError: If the lengths differ or a standard deviation is not positive; when called, if
            the images have another number of channels.
    """
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, (Sequence, Tensor)):
            raise UserError(
                f"{name} has one number per channel, such as [0.5, 0.5, 0.5], got {values!r}"
            )
    if len(mean) != len(std) or not len(mean):
        raise UserError(
            f"mean has {len(mean)} channels and std {len(std)}; give one number per channel to both"
        )
    if min(std) <= 0:
        raise UserError(f"std must be positive in every channel, got {list(std)}")
    is_new = MEAN not in dict(network.named_buffers(recurse=False))
    for name, values in ((MEAN, mean), (STD, std)):
        statistics = torch.tensor(values, device=device_of(network)).view(-1, 1, 1)
        network.register_buffer(name, statistics, persistent=False)
    if is_new:
        network.register_forward_pre_hook(_normalize)
    return network


def normalization(network: nn.Module) -> tuple[list[float], list[float]] | None:
    """Return the (mean, std) that `normalize_inputs` gave a network, or None."""
    buffers = dict(network.named_buffers(recurse=False))
    if MEAN not in buffers:
        return None
    return _rounded(buffers[MEAN]), _rounded(buffers[STD])


def _rounded(statistics: Tensor) -> list[float]:
    return [round(value, 7) for value in statistics.flatten().tolist()]


def _normalize(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *rest = inputs
    mean = cast("Tensor", network.pixel_mean)
    std = cast("Tensor", network.pixel_std)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != mean.shape[0]:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            f"the network expects images (N, {mean.shape[0]}, H, W), got {got}; "
            "check channels and mean/std"
        )
    return ((images - mean) / std, *rest)

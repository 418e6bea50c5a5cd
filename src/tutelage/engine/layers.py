"""How much the layers of two networks agree on the same images: a layer × layer map of debiased CKA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Taps
from tutelage.core.eval_mode import eval_mode
from tutelage.similarity import alignment


def top_layers(network: nn.Module, example: Tensor) -> list[str]:
    """Return the names of the network's children that give a tensor with one row per image."""
    found = []
    for name, child in network.named_children():
        seen: list[Any] = []
        handle = child.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output))
        with torch.no_grad():
            network(example)
        handle.remove()
        if seen and isinstance(seen[-1], Tensor) and seen[-1].shape[0] == example.shape[0] and seen[-1].ndim > 1:
            found.append(name)
    return found


@torch.no_grad()
def layer_map(left: nn.Module, right: nn.Module, images: Tensor, names: Sequence[Sequence[str]]) -> Tensor:
    """Return the matrix of centred, debiased linear CKA between layers of two networks.

    Args:
        left, right: networks, used in eval mode.
        images: (N, C, H, W) in [0, 1], N ≥ 4.
        names: tap addresses of the left and of the right network.

    Returns:
        (len(names[0]), len(names[1])) float32; values may be slightly negative.
    """
    features = []
    for network, taps in zip((left, right), names, strict=True):
        recorder = Taps(network, taps)
        with eval_mode(network):
            recorded = recorder(images).taps
        recorder.remove()
        features.append([recorded[tap].flatten(1).double() for tap in taps])
    rows = [[float(alignment(x, y, center=True, estimator="debiased")) for y in features[1]] for x in features[0]]
    return torch.tensor(rows)

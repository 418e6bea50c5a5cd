"""The convolutional part of a classifier of torchvision, which has no switch for it as timm has."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import UserError, near_misses

PROBE = 128  # side of the image by which the part is found


def torchvision_body(name: str, *, pretrained: bool) -> tuple[nn.Module, int, int]:
    """Return images → features (N, C, h, w), the channels C and the reduction.

    It ends before the pooling: with the last module whose map is the smallest one above 1×1.

    Args:
        name: as `torchvision.models.get_model` knows it.
        pretrained: whether to load the best weights of torchvision.

    Raises:
        UserError: If there is no such network, its weights cannot be loaded, or it has no maps.
    """
    from torchvision import models
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    names = models.list_models(module=models)
    if name not in names:
        raise UserError(f"torchvision has no network {name!r}{near_misses(name, names)}")
    try:
        with warnings.catch_warnings():
            # GoogLeNet and Inception announce a future change of their initial weights.
            warnings.simplefilter("ignore", FutureWarning)
            network = models.get_model(name, weights="DEFAULT" if pretrained else None)
    except OSError as error:
        raise UserError(
            f"the weights of {name} cannot be loaded ({error}); check the network connection, or "
            "set pretrained to False"
        ) from error
    try:
        # It warns of nodes that only training has, which are not taken.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", UserWarning)
            training, evaluation = get_graph_node_names(network)
            shared = [node for node in evaluation if node in set(training)]
            every = create_feature_extractor(network, return_nodes=shared).eval()
            outputs: dict[str, Any] = every(torch.zeros(1, 3, PROBE, PROBE))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"torchvision gives no maps of features of {name} ({error}); take a convolutional "
            "network, such as resnet18"
        ) from error
    sides = {node: _side(value) for node, value in outputs.items()}
    smallest = min((side for side in sides.values() if 1 < side < PROBE), default=None)
    if smallest is None or PROBE % smallest:
        raise UserError(
            f"torchvision gives no maps of features of {name} whose sides are halved; take another "
            "network, such as resnet18"
        )
    last = [node for node, side in sides.items() if side == smallest][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        body = create_feature_extractor(network, return_nodes={last: "features"})
    return _Features(body), outputs[last].shape[1], PROBE // smallest


def _side(value: object) -> int:
    """Return the side of a square map; 0 for anything else."""
    is_map = isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == value.shape[-2]
    return int(value.shape[-1]) if is_map and isinstance(value, Tensor) else 0


class _Features(nn.Module):
    """The only output of a feature extractor.

    Args:
        body: returns a mapping with `features`.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, C, h, w)."""
        features: Tensor = self.body(images)["features"]
        return features

"""Narrow copies of a network: fewer channels in every layer, the same structure."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.errors import UserError


def scale_width(network: nn.Module, width: float, *, channel_multiple: int = 1) -> nn.Module:
    """Return a copy of a network with `width` times its channels in every layer.

    The network consists of convolutions, linear layers and batch norms. Image channels and classes
    stay, and equal widths stay equal, so that shortcuts fit. Every new weight is drawn from the
    layer's own, scaled to the new fan-in: the network's initialization is preserved, what it has
    learned is not. The classifier gets a bias if it has none.

    >>> scale_width(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 10)), 0.5)
    Sequential(
      (0): Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1))
      (1): Flatten(start_dim=1, end_dim=-1)
      (2): Linear(in_features=64, out_features=10, bias=True)
    )

    Args:
        network: any module that ends in a linear classifier.
        width: share of the channels to keep.
        channel_multiple: the new numbers of channels are multiples of it.

    Raises:
        UserError: If a layer would have no channels, is none of the three kinds, or has groups that
            do not fit.
    """

    def scale(channels: int, layer_name: str) -> int:
        scaled = int(channels * width / channel_multiple + 0.5) * channel_multiple
        if not scaled:
            raise UserError(
                f"a width of {width:.3f} leaves none of the {channels} channels of the layer "
                f"{layer_name!r}; change share, or lower channel_multiple ({channel_multiple})"
            )
        return scaled

    narrow = copy.deepcopy(network)
    classifier = classifier_name(narrow)
    # Channels that the layer before gave in the original; the first layer's inputs stay.
    previous_channels = 0
    for name, layer in narrow.named_modules():
        if isinstance(layer, nn.Conv2d):
            inputs = scale(layer.in_channels, name) if previous_channels else layer.in_channels
            previous_channels = layer.out_channels
            _resize_convolution(layer, inputs, scale(layer.out_channels, name), name)
        elif isinstance(layer, nn.Linear):
            inputs = layer.in_features
            if previous_channels:
                positions = _num_positions(layer, previous_channels, name)
                inputs = scale(previous_channels, name) * positions
            previous_channels = layer.out_features
            if name == classifier:
                _resize_linear(layer, inputs, layer.out_features)
                _add_bias(layer)
            else:
                _resize_linear(layer, inputs, scale(layer.out_features, name))
        elif isinstance(layer, _BatchNorm):
            _resize_norm(layer, scale(layer.num_features, name))
        elif list(layer.parameters(recurse=False)):
            where = f"the layer {name!r}, a " if name else "a "
            raise UserError(
                f"{where}{type(layer).__name__} cannot be narrowed; use a convolutional student"
            )
    return narrow


def classifier_name(network: nn.Module) -> str:
    """Return the name of the last linear layer.

    >>> classifier_name(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    '1'

    Raises:
        UserError: If there is no linear layer.
    """
    linear_layers: list[str] = [
        name for name, module in network.named_modules() if isinstance(module, nn.Linear) and name
    ]
    if not linear_layers:
        raise UserError(
            f"{type(network).__name__} has no linear classifier to share out; use another student"
        )
    return linear_layers[-1]


def _resize_convolution(layer: nn.Conv2d, inputs: int, outputs: int, name: str) -> None:
    if layer.groups > 1 and layer.groups == layer.in_channels:  # depthwise
        outputs = inputs * (layer.out_channels // layer.in_channels)
        layer.groups = inputs
    if inputs % layer.groups or outputs % layer.groups:
        raise UserError(
            f"the layer {name!r} has {layer.groups} groups, which {inputs} and {outputs} channels "
            f"do not fill; set channel_multiple to {layer.groups}"
        )
    layer.in_channels = inputs
    layer.out_channels = outputs
    _redraw(layer, (outputs, inputs // layer.groups, *layer.kernel_size))


def _num_positions(layer: nn.Linear, channels: int, name: str) -> int:
    """Return at how many positions of a flattened map a linear layer sees every channel.

    It is 1 after a global pooling.
    """
    if layer.in_features % channels:
        raise UserError(
            f"the layer {name!r} takes {layer.in_features} features, no multiple of the {channels} "
            "channels before it, and cannot be narrowed; use another student"
        )
    return layer.in_features // channels


def _resize_linear(layer: nn.Linear, inputs: int, outputs: int) -> None:
    layer.in_features = inputs
    layer.out_features = outputs
    _redraw(layer, (outputs, inputs))


def _add_bias(layer: nn.Linear) -> None:
    # torch types `bias` as always there, so mypy takes `layer.bias is None` for unreachable.
    if "bias" not in dict(layer.named_parameters()):
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features))


def _resize_norm(layer: _BatchNorm, channels: int) -> None:
    layer.num_features = channels
    _redraw(layer, (channels,))
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean = layer.running_mean[:1].repeat(channels)
        layer.running_var = layer.running_var[:1].repeat(channels)
        layer.reset_running_stats()


def _redraw(layer: nn.Module, shape: Sequence[int]) -> None:
    """Draw the weight of a new shape, and the bias, from the old values."""
    for name, old in list(layer.named_parameters(recurse=False)):
        values = old.detach().flatten()
        if name == "weight":
            size = tuple(shape)
            # Initializations scale with 1 / √fan-in; a norm's weight has no fan-in.
            gain = math.sqrt(old[0].numel() / math.prod(shape[1:]))
        else:
            size = tuple(shape[:1])
            gain = 1.0
        drawn = values[torch.randint(len(values), size, device=values.device)] * gain
        layer.register_parameter(name, nn.Parameter(drawn, requires_grad=old.requires_grad))

"""A narrower copy of a network: fewer channels in every layer, the same structure."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.errors import UserError


def narrow(network: nn.Module, width: float, multiple: int = 1) -> nn.Module:
    """Return a copy of a network of convolutions, linear layers and batch norms, with `width` times its channels.

    Image channels and classes stay, and equal widths stay equal, so that shortcuts fit. Every new weight is drawn from
    the layer's own, scaled to the new fan-in: the network's way to initialise is kept, what it has learned is not. The
    classifier gets a bias where it has none.

    >>> narrow(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 10)), 0.5)
    Sequential(
      (0): Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1))
      (1): Flatten(start_dim=1, end_dim=-1)
      (2): Linear(in_features=64, out_features=10, bias=True)
    )

    Args:
        network: any module that ends in a linear classifier.
        width: share of the channels to keep.
        multiple: of which the new numbers of channels are.

    Raises:
        UserError: a layer would have no channels, or is none of those, or its groups do not fit.
    """
    made = copy.deepcopy(network)
    last, before = classifier_of(made), 0
    for name, layer in made.named_modules():
        scale = partial(_scaled, width=width, multiple=multiple, name=name)
        if isinstance(layer, nn.Conv2d):
            inputs, before = scale(layer.in_channels) if before else layer.in_channels, layer.out_channels
            _narrow_convolution(layer, inputs, scale(layer.out_channels), name)
        elif isinstance(layer, nn.Linear):
            inputs = scale(before) * _positions(layer, before, name) if before else layer.in_features
            before = layer.out_features
            _narrow_linear(layer, inputs, before if name == last else scale(before), bias=name == last)
        elif isinstance(layer, _BatchNorm):
            _narrow_norm(layer, scale(layer.num_features))
        elif any(True for _ in layer.parameters(recurse=False)):
            where = f"the layer {name!r}, a " if name else "a "
            raise UserError(f"{where}{type(layer).__name__} cannot be narrowed; use a convolutional student")
    return made


def classifier_of(network: nn.Module) -> str:
    """Return the name of the last linear layer.

    >>> classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    '1'
    """
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear) and name]
    if not names:
        raise UserError(f"{type(network).__name__} has no linear classifier to share out; use another student")
    return names[-1]


def _scaled(channels: int, width: float, multiple: int, name: str) -> int:
    found = int(channels * width / multiple + 0.5) * multiple
    if not found:
        raise UserError(
            f"a width of {width:.3f} leaves none of the {channels} channels of the layer {name!r}; change share, or "
            f"lower multiple ({multiple})"
        )
    return found


def _narrow_convolution(layer: nn.Conv2d, inputs: int, outputs: int, name: str) -> None:
    if layer.groups > 1 and layer.groups == layer.in_channels:  # depthwise
        outputs = inputs * (layer.out_channels // layer.in_channels)
        layer.groups = inputs
    if inputs % layer.groups or outputs % layer.groups:
        raise UserError(
            f"the layer {name!r} has {layer.groups} groups, which {inputs} and {outputs} channels do not fill; "
            f"set multiple to {layer.groups}"
        )
    layer.in_channels, layer.out_channels = inputs, outputs
    _redraw(layer, (outputs, inputs // layer.groups, *layer.kernel_size))


def _positions(layer: nn.Linear, channels: int, name: str) -> int:
    """Return at how many positions of a flattened map a linear layer sees every channel; 1 after a global pooling."""
    if layer.in_features % channels:
        raise UserError(
            f"the layer {name!r} takes {layer.in_features} features, no multiple of the {channels} channels before it, "
            "and cannot be narrowed; use another student"
        )
    return layer.in_features // channels


def _narrow_linear(layer: nn.Linear, inputs: int, outputs: int, bias: bool) -> None:
    layer.in_features, layer.out_features = inputs, outputs
    _redraw(layer, (outputs, inputs))
    if bias and "bias" not in dict(layer.named_parameters()):
        layer.bias = nn.Parameter(layer.weight.new_zeros(outputs))


def _narrow_norm(layer: _BatchNorm, channels: int) -> None:
    layer.num_features = channels
    _redraw(layer, (channels,))
    if layer.running_mean is not None and layer.running_var is not None:
        layer.running_mean, layer.running_var = (
            old[:1].repeat(channels) for old in (layer.running_mean, layer.running_var)
        )
        layer.reset_running_stats()


def _redraw(layer: nn.Module, shape: Sequence[int]) -> None:
    """Draw weight and bias of a new shape from the old ones."""
    for name, old in list(layer.named_parameters(recurse=False)):
        values = old.detach().flatten()
        size = shape if name == "weight" else shape[:1]
        gain = math.sqrt(old[0].numel() / math.prod(size[1:])) if name == "weight" else 1.0
        drawn = values[torch.randint(len(values), tuple(size), device=values.device)] * gain
        layer.register_parameter(name, nn.Parameter(drawn, requires_grad=old.requires_grad))

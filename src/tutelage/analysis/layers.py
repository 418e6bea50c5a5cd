"""The layers of a network that can be compared: modules whose output has one row per item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.analysis._inputs import Inputs, num_items, split_inputs, to_device_of
from tutelage.core.modes import eval_mode
from tutelage.core.taps import call

MIN_LAYERS = 4


def layers_of(network: nn.Module, inputs: Inputs, *, min_layers: int = MIN_LAYERS) -> list[str]:
    """Return tap addresses of a network's layers, in the order in which they run.

    These are the modules of the shallowest level at which at least `min_layers` of them give one
    row per item: the children of the network, and where these are too few, the children of the
    children, and so on. A tuple or a mapping counts by its first tensor, whose address is `name[0]`
    or `name[key]`.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    >>> layers_of(network, (torch.ones(5, 4),))
    ['0', '1.0', '1.1']

    Args:
        network: any module; its mode is restored.
        inputs: positional arguments of its forward, for a batch of at least two items; a single
            mapping is passed as keyword arguments.
        min_layers: how many layers to look for.
    """
    addresses = _output_addresses(network, inputs)
    count = num_items(inputs)
    if count > 2:
        # An output may have as many time steps as there are items; of fewer items it has as many.
        fewer = _output_addresses(network, split_inputs(inputs, count - 1)[0])
        addresses = {name: a for name, a in addresses.items() if fewer.get(name) == a}
    level = [name for name, _ in network.named_children()]
    layers = _comparable(level, addresses)
    while len(layers) < min_layers:
        deeper = [name for parent in level for name in _children(network, parent)]
        if deeper == level:
            break
        level = deeper
        layers = _comparable(level, addresses)
    return layers


def _children(network: nn.Module, name: str) -> list[str]:
    """Return the children of a module, or the module itself if it has none."""
    children = [f"{name}.{child}" for child, _ in network.get_submodule(name).named_children()]
    return children or [name]


def _comparable(level: Sequence[str], addresses: Mapping[str, str]) -> list[str]:
    """Return the addresses of those modules that have one, in the order in which they ran."""
    return [address for name, address in addresses.items() if name in level]


@torch.no_grad()
def _output_addresses(network: nn.Module, inputs: Inputs) -> dict[str, str]:
    """Return the address of every output with one row per item, by module.

    They are in the order of the modules' last calls.
    """
    count = num_items(inputs)
    addresses: dict[str, str] = {}
    handles = []
    for name, module in network.named_modules():

        def note(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            address = _address(name, output, count)
            if address is not None:
                addresses.pop(name, None)  # a second call moves the module to the end
                addresses[name] = address

        handles.append(module.register_forward_hook(note))
    try:
        with eval_mode(network):
            call(network, to_device_of(network, inputs))
    finally:
        for handle in handles:
            handle.remove()
    return addresses


def _address(name: str, output: Any, count: int) -> str | None:
    """Return the address of an output's first tensor, None if it has not one row per item."""
    if isinstance(output, Tensor):
        return name if _has_one_row_per_item(output, count) else None
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Mapping):
        entries = output.items()
    elif isinstance(output, (tuple, list)):
        entries = enumerate(output)
    for key, value in entries:
        if isinstance(value, Tensor):
            return f"{name}[{key}]" if _has_one_row_per_item(value, count) else None
    return None


def _has_one_row_per_item(output: Tensor, count: int) -> bool:
    return (
        output.ndim > 1
        and len(output) == count
        and output.is_floating_point()
        and output[0].numel() > 0
    )

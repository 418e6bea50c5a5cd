"""Which layers of a network can be compared: the modules that give one row per item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.eval_mode import eval_mode

ENOUGH = 4


def layers_of(network: nn.Module, inputs: tuple[Any, ...], enough: int = ENOUGH) -> list[str]:
    """Return tap addresses of a network's layers, in the order in which they run.

    These are the modules of the shallowest level at which at least `enough` of them give one row per item: the
    children of the network, and where these are too few, the children of the children, and so on. A tuple or a
    mapping counts by its first tensor, whose address is `name[0]` or `name[key]`.

    >>> layers_of(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2))), (torch.ones(5, 4),))
    ['0', '1.0', '1.1']

    Args:
        network: any module; its mode is restored.
        inputs: positional arguments of its forward, for one batch of at least two items.
        enough: how many layers to look for.
    """
    ran = _outputs(network, inputs)
    level = [name for name, _ in network.named_children()]
    found = _usable(level, ran)
    while len(found) < enough:
        deeper = [name for parent in level for name in _below(network, parent)]
        if deeper == level:
            break
        level, found = deeper, _usable(deeper, ran)
    return found


def _below(network: nn.Module, name: str) -> list[str]:
    """Return the children of a module, or itself where it has none."""
    children = [f"{name}.{child}" for child, _ in network.get_submodule(name).named_children()]
    return children or [name]


def _usable(level: Sequence[str], ran: Mapping[str, str]) -> list[str]:
    order = {name: position for position, name in enumerate(ran)}
    return [ran[name] for name in sorted((n for n in level if n in ran), key=order.__getitem__)]


@torch.no_grad()
def _outputs(network: nn.Module, inputs: tuple[Any, ...]) -> dict[str, str]:
    """Return the address of every module's output with one row per item, in the order of their last calls."""
    items = _items(inputs)
    ran: dict[str, str] = {}
    handles = []
    for name, module in network.named_modules():

        def note(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            address = _address(name, output, items)
            if address is not None:
                ran.pop(name, None)
                ran[name] = address

        handles.append(module.register_forward_hook(note))
    try:
        with eval_mode(network):
            if len(inputs) == 1 and isinstance(inputs[0], Mapping):
                network(**inputs[0])
            else:
                network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _address(name: str, output: Any, items: int) -> str | None:
    if isinstance(output, Tensor):
        fits = output.ndim > 1 and len(output) == items and output.is_floating_point() and output[0].numel() > 0
        return name if fits else None
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(output, Mapping):
        pairs = output.items()
    elif isinstance(output, (tuple, list)):
        pairs = enumerate(output)
    for key, value in pairs:
        if isinstance(value, Tensor):
            return None if _address(name, value, items) is None else f"{name}[{key}]"
    return None


def _items(inputs: Any) -> int:
    """Return the length of the first tensor in the inputs."""
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    for value in values:
        if isinstance(value, Tensor):
            return len(value)
        if isinstance(value, (Mapping, tuple, list)):
            return _items(value)
    return 0

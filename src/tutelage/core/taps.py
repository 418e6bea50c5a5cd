"""Taps: record the outputs of named submodules without editing the model.

A *tap* is a forward hook that records what a submodule returned. Its address is `name`,
`name:call` or `name[item]...`, in that order:

    layer3                      output of the last call of `layer3` in one forward pass
    layer1.0.relu:0             output of its first call (a module used twice has `:0` and `:1`)
    encoder[0]                  first element of a tuple output
    backbone[p3]                entry of a dict output (also of a Hugging Face ModelOutput)
    transform[0][tensors]       attribute of an object
    encoder:1[hidden_states][2] all of it together

Hooks are set when `FeatureTaps` is made, so make it *before* `torch.compile`: hooks that are added
after the first compiled call are silently never called. A tap that does not fire raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tutelage.core.output import Output
from tutelage.errors import UserError, near_misses

_ADDRESS = re.compile(r"(?P<module>[^:\[\]]*)(?::(?P<call>\d+))?(?P<items>(?:\[[^\[\]]+\])*)")


@dataclass(frozen=True)
class Address:
    """A parsed tap address.

    Attributes:
        text: the address as it was written.
        module: name of the submodule.
        call: which call of it; None is the last one.
        items: what to pick of its output, one after the other.
    """

    text: str
    module: str
    call: int | None
    items: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse an address.

        >>> Address.parse("encoder:1[hidden_states][2]").items
        ('hidden_states', '2')
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not match["module"]:
            raise UserError(
                f"{text!r} is not a tap address; write 'module', 'module:call' or 'module[item]'"
            )
        items = tuple(re.findall(r"\[([^\[\]]+)\]", match["items"]))
        call = None if match["call"] is None else int(match["call"])
        return cls(text, match["module"], call, items)

    def pick(self, output: Any) -> Tensor:
        """Follow the items into a module's output, down to a tensor."""
        value = output
        for item in self.items:
            value = self._descend(value, item)
        if not isinstance(value, Tensor):
            choices = _choices(value)
            hint = (
                f"; choose one of {[f'{self.text}[{c}]' for c in choices[:8]]}" if choices else ""
            )
            kind = type(value).__name__
            raise UserError(f"the tap {self.text!r} gives a {kind}, not a tensor{hint}")
        return value

    def _descend(self, value: Any, item: str) -> Any:
        if isinstance(value, Mapping) and item in value:
            return value[item]
        if isinstance(value, Sequence) and item.lstrip("-").isdigit():
            index = int(item)
            if -len(value) <= index < len(value):
                return value[index]
        if item in _attributes(value):
            return _attributes(value)[item]
        raise UserError(
            f"the tap {self.text!r} finds no [{item}] in a {type(value).__name__}; "
            f"there are {_choices(value)}"
        )


def _choices(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [str(i) for i in range(len(output))]
    return list(_attributes(output))


def _attributes(output: Any) -> dict[str, Any]:
    """Return the attributes of an object such as torchvision's ImageList; none of a tensor."""
    try:
        return {} if isinstance(output, Tensor) else vars(output)
    except TypeError:
        return {}


def _unchanged(value: Tensor) -> Tensor:
    return value


class _Recorder:
    """The forward hook of one module; records what its addresses ask for, call by call."""

    def __init__(self, addresses: list[Address], transform: Callable[[Tensor], Tensor]) -> None:
        self.addresses = addresses
        self.transform = transform
        self.calls = 0
        self.recorded: dict[str, Tensor] = {}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        for address in self.addresses:
            if address.call is None or address.call == self.calls:
                self.recorded[address.text] = self.transform(address.pick(output))
        self.calls += 1

    def __deepcopy__(self, memo: dict[int, Any]) -> _Recorder:
        """Return a recorder for a copy of the network, without tensors of this one's graph."""
        recorder = _Recorder(self.addresses, self.transform)
        memo[id(self)] = recorder
        return recorder

    def reset(self) -> None:
        """Forget what was recorded, before another forward pass."""
        self.calls = 0
        self.recorded = {}

    def take(self) -> dict[str, Tensor]:
        """Return what was recorded and reset."""
        recorded, calls = self.recorded, self.calls
        self.reset()
        for address in self.addresses:
            if address.text not in recorded:
                fired = f"it was called {calls} times" if calls else "it was never called"
                raise UserError(
                    f"the tap {address.text!r} did not fire: {fired} in this forward pass; tap a "
                    "module that the network calls (not a ModuleList), and make taps before "
                    "torch.compile"
                )
        return recorded


class FeatureTaps:
    """Runs a network and records the outputs of named submodules.

    >>> import torch
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> output = FeatureTaps(network, ["1"])(torch.ones(5, 4))
    >>> output.output.shape, output.features["1"].shape
    (torch.Size([5, 2]), torch.Size([5, 3]))

    Args:
        network: any module; it gets hooks, and is not a child of anything here.
        layers: tap addresses, see the module's docstring.
        transform: applied to a tapped tensor at once, in the hook. A Gram matrix, for instance,
            needs less memory and is safe from a later operation in place. Default: the tensor.

    Raises:
        UserError: If an address names no submodule (the message has the nearest names). When
            called: if a tap did not fire or did not lead to a tensor.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        transform: Callable[[Tensor], Tensor] = _unchanged,
    ) -> None:
        self.network = network
        self.layers = tuple(layers)
        modules = dict(network.named_modules())
        by_module: dict[str, list[Address]] = {}
        for layer in dict.fromkeys(layers):
            address = Address.parse(layer)
            find_module(network, address.module, modules)
            by_module.setdefault(address.module, []).append(address)
        self._recorders: list[_Recorder] = []
        self._handles: list[RemovableHandle] = []
        for name, addresses in by_module.items():
            recorder = _Recorder(addresses, transform)
            self._recorders.append(recorder)
            self._handles.append(modules[name].register_forward_hook(recorder))

    def __call__(self, *inputs: Any) -> Output:
        """Run the network once; a single mapping is passed as keyword arguments."""
        return self.run(self.network, *inputs)

    def run(self, part: nn.Module, *inputs: Any) -> Output:
        """Run a part of the network that holds all taps, such as a detector's backbone, once."""
        for recorder in self._recorders:
            recorder.reset()
        output = call(part, inputs)
        features: dict[str, Tensor] = {}
        for recorder in self._recorders:
            features.update(recorder.take())
        return Output(output, features)

    def remove(self) -> None:
        """Remove the hooks; the network is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._recorders = []


def remove_taps(network: nn.Module) -> None:
    """Remove all taps from a network, such as those that a copy of a tapped network has."""
    for module in network.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, _Recorder):
                del module._forward_hooks[key]


def call(network: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Run a network on positional arguments; a single mapping is passed as keyword arguments."""
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return network(**inputs[0])
    return network(*inputs)


def find_module(
    network: nn.Module, name: str, modules: Mapping[str, nn.Module] | None = None
) -> nn.Module:
    """Return the submodule `name`, or raise with the nearest names.

    >>> find_module(nn.Sequential(nn.ReLU()), "relu")
    Traceback (most recent call last):
    tutelage.errors.UserError: no module 'relu' in Sequential; known are ['0']

    Args:
        network: the network to search.
        name: of the submodule, as in `named_modules`.
        modules: `dict(network.named_modules())`, if it is at hand.

    Raises:
        UserError: If there is no such submodule.
    """
    modules = dict(network.named_modules()) if modules is None else modules
    if name not in modules:
        raise UserError(
            f"no module {name!r} in {type(network).__name__}{near_misses(name, modules)}"
        )
    return modules[name]

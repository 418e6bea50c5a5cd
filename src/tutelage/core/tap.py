"""Taps: record the outputs of named submodules without editing the model.

An address is `name`, `name:call` or `name[item]…`, in that order:

    layer3                      output of the last call of `layer3` in one forward pass
    layer1.0.relu:0             output of its first call (a module that is used twice has `:0` and `:1`)
    encoder[0]                  first element of a tuple output
    backbone[p3]                entry of a dict output (also of a Hugging Face ModelOutput)
    transform[0][tensors]       attribute of an object
    encoder:1[hidden_states][2] all of it together

Hooks are set when `Taps` is made, so make it *before* `torch.compile`: hooks that are added after the first
compiled call are silently never called. A tap that does not fire in a forward pass raises and names itself.
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
    """A parsed tap address; `call` None is the last call of the pass."""

    text: str
    module: str
    call: int | None
    items: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        >>> Address.parse("encoder:1[hidden_states][2]").items
        ('hidden_states', '2')
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not match["module"]:
            raise UserError(f"{text!r} is not a tap address; write 'module', 'module:call' or 'module[item]'")
        items = tuple(re.findall(r"\[([^\[\]]+)\]", match["items"]))
        return cls(text, match["module"], None if match["call"] is None else int(match["call"]), items)

    def pick(self, output: Any) -> Tensor:
        """Follow the items into a module's output; the end must be a tensor."""
        here = output
        for item in self.items:
            here = self._descend(here, item)
        if not isinstance(here, Tensor):
            choices = _choices(here)
            hint = f"; choose one of {[f'{self.text}[{c}]' for c in choices[:8]]}" if choices else ""
            raise UserError(f"the tap {self.text!r} gives a {type(here).__name__}, not a tensor{hint}")
        return here

    def _descend(self, here: Any, item: str) -> Any:
        if isinstance(here, Mapping) and item in here:
            return here[item]
        if isinstance(here, Sequence) and item.lstrip("-").isdigit() and -len(here) <= int(item) < len(here):
            return here[int(item)]
        if item in _attributes(here):
            return _attributes(here)[item]
        raise UserError(
            f"the tap {self.text!r} finds no [{item}] in a {type(here).__name__}; there are {_choices(here)}"
        )


def _choices(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return [str(key) for key in output]
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [str(i) for i in range(len(output))]
    return list(_attributes(output))


def _attributes(output: Any) -> dict[str, Any]:
    """Return what an object such as torchvision's ImageList holds; a tensor and plain values hold nothing."""
    try:
        return {} if isinstance(output, Tensor) else vars(output)
    except TypeError:
        return {}


def _as_it_is(value: Tensor) -> Tensor:
    return value


class _Recorder:
    """The forward hook of one module: keeps what its addresses ask for, call by call."""

    def __init__(self, addresses: list[Address], keep: Callable[[Tensor], Tensor]) -> None:
        self.addresses, self.keep = addresses, keep
        self.calls = 0
        self.recorded: dict[str, Tensor] = {}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        for address in self.addresses:
            if address.call is None or address.call == self.calls:
                self.recorded[address.text] = self.keep(address.pick(output))
        self.calls += 1

    def __deepcopy__(self, memo: dict[int, Any]) -> _Recorder:
        """Return a recorder for a copy of the network, without what was recorded: that hangs on this one's graph."""
        memo[id(self)] = made = _Recorder(self.addresses, self.keep)
        return made

    def take(self) -> dict[str, Tensor]:
        """Hand over what was recorded and be ready for the next pass."""
        missing = [a for a in self.addresses if a.text not in self.recorded]
        if missing:
            calls, self.calls, self.recorded = self.calls, 0, {}
            fired = f"it was called {calls} times" if calls else "it was never called"
            raise UserError(
                f"the tap {missing[0].text!r} did not fire: {fired} in this forward pass; "
                "tap a module that the network calls (not a ModuleList), and make taps before torch.compile"
            )
        recorded, self.calls, self.recorded = self.recorded, 0, {}
        return recorded


class Taps:
    """A network that also tells what its named submodules gave.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> output = Taps(net, ["1"])(torch.ones(5, 4))
    >>> output.out.shape, output.taps["1"].shape
    (torch.Size([5, 2]), torch.Size([5, 3]))

    Args:
        network: any module; it is not edited, and not a child of anything here.
        names: tap addresses (see the module's page).
        keep: what to record of a tapped tensor, called at once in the hook (a Gram matrix, say, that needs less
            memory and is safe from a later operation in place); default: the tensor itself.

    Raises:
        UserError: an address names no submodule (the message has the nearest names), or, when called, a tap
            did not fire or did not lead to a tensor.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str] = (), keep: Callable[[Tensor], Tensor] = _as_it_is
    ) -> None:
        self.network = network
        self.names = tuple(names)
        modules = dict(network.named_modules())
        grouped: dict[str, list[Address]] = {}
        for name in dict.fromkeys(names):
            address = Address.parse(name)
            find_module(network, address.module, modules)
            grouped.setdefault(address.module, []).append(address)
        self._recorders = [_Recorder(addresses, keep) for addresses in grouped.values()]
        self._handles: list[RemovableHandle] = [
            modules[module].register_forward_hook(recorder)
            for module, recorder in zip(grouped, self._recorders, strict=True)
        ]

    def __call__(self, *inputs: Any) -> Output:
        """Run the network once; a dict input is passed by name."""
        return self.run(self.network, *inputs)

    def run(self, part: nn.Module, *inputs: Any) -> Output:
        """Run a part of the network that holds all taps, such as a detector's backbone, once."""
        for recorder in self._recorders:
            recorder.calls, recorder.recorded = 0, {}
        out = call(part, inputs)
        taps: dict[str, Tensor] = {}
        for recorder in self._recorders:
            taps.update(recorder.take())
        return Output(out, taps)

    def remove(self) -> None:
        """Take the hooks off; the network is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._recorders = [], []


def untapped(network: nn.Module) -> None:
    """Take off the taps that a copy of a tapped network has brought along."""
    for module in network.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, _Recorder):
                del module._forward_hooks[key]


def call(network: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Run a network on the positional arguments of a task; a single dict is passed by name."""
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return network(**inputs[0])
    return network(*inputs)


def find_module(network: nn.Module, name: str, modules: Mapping[str, nn.Module] | None = None) -> nn.Module:
    """Return the submodule `name`, or raise with the nearest names.

    >>> find_module(nn.Sequential(nn.ReLU()), "relu")
    Traceback (most recent call last):
    tutelage.errors.UserError: no module 'relu' in Sequential; known are ['0']
    """
    modules = dict(network.named_modules()) if modules is None else modules
    if name not in modules:
        raise UserError(f"no module {name!r} in {type(network).__name__}{near_misses(name, modules)}")
    return modules[name]

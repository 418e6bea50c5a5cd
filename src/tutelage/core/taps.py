"""Taps: record the outputs of named submodules without editing the model.

A *tap* is a forward hook that records what a submodule returned. Its address is `name`,
`name:call` or `name[item]...`, in that order:

    layer3                      output of the last call of `layer3` in one forward pass
    layer1.0.relu:0             output of its first call (a module used twice has `:0` and `:1`)
    encoder[0]                  first element of a tuple output
    backbone[p3]                entry of a dict output (also of a Hugging Face ModelOutput)
    transform[0][tensors]       attribute of an object
    encoder:1[hidden_states][2] all of it together

What is recorded is the module's own output, also where a later layer changes it in place, or
whoever gets the network's output. Hooks are set when `FeatureTaps` is made, so make it *before*
`torch.compile`: hooks that are added after the first compiled call are silently never called. A tap
that does not fire raises.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from tutelage.core._address import Address
from tutelage.core._arguments import check_kind, check_layer_names
from tutelage.core._recorder import ChangedInPlaceError, Recorder, remove_hooks
from tutelage.core.batch import tensors_in
from tutelage.core.output import Output
from tutelage.errors import UserError, near_misses

__all__ = ["Address", "FeatureTaps", "call", "find_module", "remove_taps", "unwrapped"]


def _unchanged(value: Tensor) -> Tensor:
    return value


class FeatureTaps:
    """Runs a network and records the outputs of named submodules.

    The hooks act in its own passes only, and go with it: when it is deleted, or by `remove`. A copy
    of the network has none of them; a copy of the taps has its own, on its own network.

    >>> import torch
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> output = FeatureTaps(network, ["1"])(torch.ones(5, 4))
    >>> output.output.shape, output.features["1"].shape
    (torch.Size([5, 2]), torch.Size([5, 3]))

    Args:
        network: any module; it gets hooks, and is not a child of anything here.
        layers: tap addresses, see the module's docstring.
        transform: applied to a tapped tensor at once, in the hook. A Gram matrix, for instance,
            needs less memory. Default: the tensor.

    Raises:
        UserError: If an address names no submodule (the message has the nearest names), or if
            `torch.export` made the network. When called: if a tap did not fire or did not lead to
            a tensor.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        transform: Callable[[Tensor], Tensor] = _unchanged,
    ) -> None:
        check_kind("the network to tap", network, nn.Module, "torch.nn.Linear(8, 3)")
        check_layer_names("the layers to tap", layers)
        _refuse_exported(network)
        self.network = network
        self.layers = tuple(layers)
        self.transform = transform
        self.without_gradients: list[str] = []
        # A module that has several names can be tapped by each.
        modules = dict(network.named_modules(remove_duplicate=False))
        by_module: dict[nn.Module, list[Address]] = {}
        for layer in dict.fromkeys(layers):
            address = Address.parse(layer)
            module = find_module(network, address.module, modules)
            if isinstance(module, torch.jit.ScriptModule):
                raise UserError(
                    f"{layer!r} is a scripted module, which takes no hooks; give the network as "
                    "it was before torch.jit.script or torch.jit.trace"
                )
            by_module.setdefault(module, []).append(address)
        self._recorders: list[Recorder] = []
        handles: list[RemovableHandle] = []
        for module, addresses in by_module.items():
            recorder = Recorder(addresses, transform, module)
            self._recorders.append(recorder)
            handles.append(module.register_forward_hook(recorder))
        self._finalizer = weakref.finalize(self, _remove, handles)
        self._finalizer.atexit = False

    def __call__(self, *inputs: Any) -> Output:
        """Run the network once; a single mapping is passed as keyword arguments."""
        return self.run(self.network, *inputs)

    def run(self, part: nn.Module, *inputs: Any) -> Output:
        """Run a part of the network that holds all taps, such as a detector's backbone, once.

        Raises:
            UserError: If a tap did not fire, if the taps were removed, or if a layer changed its
                output in place for the first time after passes in which none did.
        """
        if self.layers and not self._finalizer.alive:
            raise UserError(
                f"the taps on {list(self.layers)} were removed, as Distiller.deploy does; make a "
                "new Distiller or new taps, or deploy last"
            )
        gradients = torch.is_grad_enabled()
        training = self.network.training
        try:
            return self._run(part, inputs, (training, gradients))
        except ChangedInPlaceError:
            if training or gradients:  # a second pass would draw and count once more
                raise
        return self._run(part, inputs, (training, gradients))

    def _run(self, part: nn.Module, inputs: tuple[Any, ...], mode: tuple[bool, bool]) -> Output:
        features: dict[str, Tensor] = {}
        self.without_gradients = []
        for recorder in self._recorders:
            recorder.start(mode)
        try:
            output = call(part, inputs)
            for recorder in self._recorders:
                features.update(recorder.take())
                self.without_gradients.extend(recorder.without_gradients())
        finally:
            for recorder in self._recorders:
                recorder.stop()
        # What the caller does with the output in place must not reach a feature.
        returned = list(tensors_in(output)) if features else []
        for name, feature in features.items():
            if any(feature is tensor for tensor in returned):
                features[name] = feature.clone()
        return Output(output, features)

    def remove(self) -> None:
        """Remove the hooks; the network is as it was."""
        self._finalizer()
        self._recorders = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy or pickle the network and what to tap of it; the copy sets its own hooks."""
        layers = self.layers if self._finalizer.alive else ()
        return FeatureTaps, (self.network, layers, self.transform)


def _refuse_exported(network: nn.Module) -> None:
    """Raise if `torch.export` made a network: it has one mode, and calls none of its modules."""
    if any(kind.__module__.startswith("torch.export.") for kind in type(network).__mro__):
        raise UserError(
            "the network is what torch.export made, which calls no modules that could be tapped "
            "and has no eval mode; give the network as it was before torch.export"
        )


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def remove_taps(network: nn.Module) -> None:
    """Remove all taps from a network, such as those that an unpickled network has."""
    for module in network.modules():
        remove_hooks(module._forward_hooks)


def call(network: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Run a network on positional arguments; a single mapping is passed as keyword arguments."""
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return network(**inputs[0])
    return network(*inputs)


def find_module(
    network: nn.Module, name: str, modules: Mapping[str, nn.Module] | None = None
) -> nn.Module:
    """Return the submodule `name`, or raise with the nearest names.

    In a network that `torch.compile` or `DistributedDataParallel` returned, the names of the
    network inside are understood too.

    >>> find_module(nn.Sequential(nn.ReLU()), "relu")
    Traceback (most recent call last):
    tutelage.errors.UserError: no module 'relu' in Sequential; known are ['0']

    Args:
        network: the network to search.
        name: of the submodule, as in `named_modules`.
        modules: all submodules by name, if they are at hand.

    Raises:
        UserError: If there is no such submodule.
    """
    if modules is None:
        modules = dict(network.named_modules(remove_duplicate=False))
    if name in modules:
        return modules[name]
    inner = unwrapped(network)
    if inner is not network:
        return find_module(inner, name)
    raise UserError(f"no module {name!r} in {type(network).__name__}{near_misses(name, modules)}")


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of `torch.compile` and data parallelism."""
    children = dict(network.named_children())
    if set(children) == {"_orig_mod"}:
        return unwrapped(children["_orig_mod"])
    if isinstance(network, DistributedDataParallel):
        return unwrapped(children["module"])
    return network

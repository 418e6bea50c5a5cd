"""Where the teacher's outputs come from: a live network, a cache, or nowhere.

A teacher is never a registered submodule: it is not in `state_dict`, not in `parameters()`, not flipped by
`.train()` and not wrapped by DDP. It runs in eval mode under `no_grad` (not `inference_mode`: relational losses
save its tensors for backward).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tutelage.core.output import Output
from tutelage.core.tap import Taps, find_module
from tutelage.errors import UserError


class Teacher(Protocol):
    """Anything that answers a batch with an `Output`."""

    @abstractmethod
    def tapped(self, names: Sequence[str]) -> Teacher:
        """Return this teacher, recording these submodule outputs; the original is as it was."""

    @abstractmethod
    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Output:
        """Answer a batch: `inputs` is what the networks take, `batch` what the loader gave (it may carry ids)."""

    @abstractmethod
    def module(self, name: str) -> nn.Module:
        """Return a submodule of the teacher, such as its classifier."""


class Network:
    """A live network as the teacher.

    It is put into eval mode, its parameters stop requiring gradients, and it follows its inputs to their device.

    Args:
        network: any module.
        taps: addresses of the submodule outputs to record (a `Distiller` asks for its method's).

    >>> teacher = Network(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
    >>> teacher.network.training, any(p.requires_grad for p in teacher.network.parameters())
    (False, False)
    """

    def __init__(self, network: nn.Module, taps: Sequence[str] = ()) -> None:
        self.network = network.eval().requires_grad_(False)
        self._taps = Taps(network, taps)

    def tapped(self, names: Sequence[str]) -> Network:
        """Return a teacher of the same network that records these submodule outputs."""
        return Network(self.network, names)

    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Output:
        """Run the network on `inputs`."""
        return self.run(self.network, inputs)

    @torch.no_grad()
    def run(self, part: nn.Module, inputs: tuple[Any, ...]) -> Output:
        """Run a part of the network that holds all taps, such as a detector's backbone, on `inputs`."""
        if self.network.training:
            self.network.eval()
        self._follow(inputs)
        return self._taps.run(part, *inputs)

    def module(self, name: str) -> nn.Module:
        """Return the submodule `name`, or raise with the nearest names."""
        return find_module(self.network, name)

    def _follow(self, inputs: tuple[Any, ...]) -> None:
        device = first_device(inputs)
        mine = next(self.network.parameters(), None)
        if device is not None and mine is not None and mine.device != device:
            self.network.to(device)

    def __repr__(self) -> str:
        return f"Network({type(self.network).__name__})"


class Cached(Protocol):
    """The protocol of a teacher whose outputs lie on disk: it looks the batch up and runs nothing.

    It is a `Teacher`; `tapped` raises for a name that was not stored, `module` raises, since no network is at hand.
    """

    def tapped(self, names: Sequence[str]) -> Teacher:
        """Check that these taps were stored."""
        ...

    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Output:
        """Look the batch up."""
        ...

    def module(self, name: str) -> nn.Module:
        """Raise: a cache has no modules."""
        ...


class Absent:
    """No teacher: the student alone, or a method whose branches teach each other."""

    def tapped(self, names: Sequence[str]) -> Absent:
        """Refuse taps: there is nothing to tap."""
        if names:
            raise UserError(f"the method taps {list(names)} of a teacher, but there is none; give the recipe a teacher")
        return self

    def __call__(self, batch: Any, inputs: tuple[Any, ...]) -> Output:
        """Answer with nothing."""
        return Output(None)

    def module(self, name: str) -> nn.Module:
        """Refuse: there is no teacher."""
        raise UserError(f"the method needs the teacher's module {name!r}, but there is no teacher; give the recipe one")

    def __repr__(self) -> str:
        return "Absent()"


def first_device(inputs: Any) -> torch.device | None:
    """Return the device of the first tensor found in nested tuples, lists and dicts, or None."""
    if isinstance(inputs, Tensor):
        return inputs.device
    values: Any = ()
    if isinstance(inputs, Mapping):
        values = inputs.values()
    elif isinstance(inputs, (tuple, list)):
        values = inputs
    for value in values:
        device = first_device(value)
        if device is not None:
            return device
    return None

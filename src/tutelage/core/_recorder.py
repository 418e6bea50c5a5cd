"""The forward hook of a tap, and what it recorded."""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core._address import Address
from tutelage.errors import UserError

Mode = tuple[bool, bool]
"""Whether the network trains, and whether gradients are on: both can decide what it computes."""


class ChangedInPlaceError(UserError):
    """A recorded output is lost: this pass changed it in place, while those before did not."""


@dataclass(frozen=True)
class Recorded:
    """One output as a hook saw it.

    Attributes:
        value: the tensor itself.
        version: how often it had been changed in place; None if that is not known.
        copy: made in the hook unless the tap is known to need none.
        had_gradients: whether gradients were on when the layer ran.
    """

    value: Tensor
    version: int | None
    copy: Tensor | None
    had_gradients: bool


class Recorder:
    """The forward hook of one module; records what its addresses ask for, call by call.

    A later operation in place, such as `nn.ReLU(inplace=True)` after a batch norm, changes a tensor
    that a hook recorded. So the first pass in each mode copies every output, and looks afterwards
    which ones were changed: these are copied in later passes too, the others never again. The copy
    of an output that nobody changed is dropped, so all passes have the same graph.

    Args:
        addresses: what to record.
        transform: applied to a recorded tensor at once.
        module: the module that gets the hook; None for a recorder that is not in use.
    """

    def __init__(
        self,
        addresses: list[Address],
        transform: Callable[[Tensor], Tensor],
        module: nn.Module | None = None,
    ) -> None:
        self.addresses = addresses
        self.transform = transform
        self.active = False
        self.mode: Mode = (False, False)
        self.calls = 0
        self.recorded: dict[str, Recorded] = {}
        # Whether an output is copied, by address and mode; what is not in it is not known yet.
        self.copies: dict[tuple[str, Mode], bool] = {}
        self._module = None if module is None else weakref.ref(module)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        # Other passes than those of its `FeatureTaps` leave no trace: evaluation, a teacher that
        # other students have too, the second forward of a checkpointed block.
        if not self.active:
            return
        for address in self.addresses:
            if address.call is None or address.call == self.calls:
                self.recorded[address.text] = self._record(address, output)
        self.calls += 1

    def start(self, mode: Mode) -> None:
        """Record the forward pass that comes next."""
        self.mode = mode
        self.calls = 0
        self.recorded = {}
        self.active = True

    def stop(self) -> None:
        """Record no longer, and forget what was recorded."""
        self.active = False
        self.recorded = {}

    def take(self) -> dict[str, Tensor]:
        """Return the features of the pass.

        Raises:
            UserError: If a tap did not fire, or if its output was changed in place unexpectedly.
        """
        features: dict[str, Tensor] = {}
        for address in self.addresses:
            name = address.text
            if name not in self.recorded:
                calls = self.calls
                fired = f"it was called {calls} times" if calls else "it was never called"
                raise UserError(
                    f"the tap {name!r} did not fire: {fired} in this forward pass; tap a "
                    "module that the network calls (not a ModuleList), and make taps before "
                    "torch.compile"
                )
            features[name] = self._as_it_was(name, self.recorded[name])
        return features

    def without_gradients(self) -> list[str]:
        """Return the addresses whose layers ran while gradients were off."""
        return [name for name, record in self.recorded.items() if not record.had_gradients]

    def _record(self, address: Address, output: Any) -> Recorded:
        value = address.pick(output)
        try:
            value = self.transform(value)
        except UserError as error:
            raise UserError(f"the layer {address.text!r}: {error}") from error
        had_gradients = torch.is_grad_enabled()
        # A compiled graph turns operations in place into others, and inference tensors do not
        # count them: there is nothing to see afterwards.
        if torch.compiler.is_compiling() or value.is_inference():
            return Recorded(value, None, value.clone(), had_gradients)
        needed = self.copies.get((address.text, self.mode), True)
        return Recorded(value, value._version, value.clone() if needed else None, had_gradients)

    def _as_it_was(self, name: str, record: Recorded) -> Tensor:
        """Return an output as the module gave it."""
        key = (name, self.mode)
        if record.version is None:
            assert record.copy is not None
            return record.copy
        if record.copy is None:
            if record.value._version != record.version:
                self.copies[key] = True
                raise ChangedInPlaceError(
                    f"the output of the tap {name!r} was changed in place by a later layer, which "
                    "no pass before did, so it is lost; repeat the step, which keeps a copy from "
                    "now on, or tap another layer"
                )
            return record.value
        if key not in self.copies:
            changed = record.value._version != record.version
            self.copies[key] = changed or _differ(record.value, record.copy)
        return record.copy if self.copies[key] else record.value

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        """Return a hook that is gone from the copied network as soon as the copy is complete."""
        copied = Recorder(self.addresses, self.transform)
        memo[id(self)] = copied
        module = None if self._module is None else self._module()
        hooks = None if module is None else memo.get(id(module._forward_hooks))
        if hooks is not None:
            # There is no hook of a module that is called after it was copied; but the memo is
            # deleted then, and with it what only it holds.
            remover = _Remover(hooks, copied)
            memo[id(remover)] = remover
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without what was recorded; the copy records nothing."""
        return Recorder, (self.addresses, self.transform)


class _Remover:
    """Removes a hook when it is deleted itself."""

    def __init__(self, hooks: MutableMapping[int, Any], hook: Recorder) -> None:
        self.hooks = hooks
        self.hook = hook

    def __del__(self) -> None:
        remove_hooks(self.hooks, [self.hook])


def remove_hooks(hooks: MutableMapping[int, Any], wanted: Sequence[Any] | None = None) -> None:
    """Remove recorders from the forward hooks of a module.

    Args:
        hooks: of the module.
        wanted: the recorders to remove; default: all.
    """
    for key, hook in list(hooks.items()):
        if isinstance(hook, Recorder) and (wanted is None or hook in wanted):
            del hooks[key]


def _differ(value: Tensor, copy: Tensor) -> bool:
    """Return whether a tensor was changed behind its version counter, as `x.data` allows.

    It makes an accelerator wait, so it is for the first pass.
    """
    try:
        return not torch.equal(value, copy)
    except (RuntimeError, NotImplementedError):  # a tensor without data
        return True

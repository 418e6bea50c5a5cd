"""Counting the operators that a call hands to the device, backward pass included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result is a number in Python, or whose shape depends on values: on an accelerator
# the host waits for them.
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default")


class OperatorCounter(TorchDispatchMode):
    """Counts the operators inside its context.

    Attributes:
        counts: operator → how often it was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        """How many operators would make the host wait for an accelerator."""
        found = self.counts.items()
        return sum(count for name, count in found if any(wait in name for wait in WAITS))


def count_operators(call: Callable[[], object]) -> OperatorCounter:
    """Return the counter after one call, which follows one that is not counted."""
    call()
    with OperatorCounter() as counter:
        call()
    return counter

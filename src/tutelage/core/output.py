"""What one forward pass gave, and everything that a method may look at in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tutelage.errors import UserError, near_misses


@dataclass(frozen=True)
class Output:
    """What one forward pass gave.

    Attributes:
        out: what the network returned: logits, a dict of detection losses, scores …
        taps: recorded submodule outputs, by the address they were asked for with.
    """

    out: Any
    taps: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def logits(self) -> Tensor:
        """The output as one tensor: itself, or its entry `logits` (Hugging Face) or `out` (torchvision's segmentation).

        Raises:
            UserError: it is neither, or there is no output because there is no teacher.
        """
        out = self.out
        if isinstance(out, Mapping):
            out = next((out[name] for name in ("logits", "out") if name in out), out)
        if out is None:
            raise UserError("the method needs a teacher's logits, but there is no teacher; give the recipe one")
        if not isinstance(out, Tensor):
            raise UserError(
                f"the network gives a {type(out).__name__} without logits; a method on logits needs a tensor"
            )
        return out

    def tap(self, name: str) -> Tensor:
        """Return the recorded output of `name`.

        Raises:
            UserError: nothing was recorded under that name.
        """
        if name not in self.taps:
            raise UserError(f"no tap {name!r} was recorded{near_misses(name, self.taps)}")
        return self.taps[name]


@dataclass(frozen=True)
class Step:
    """Everything a method may look at in one training step; it grows by a field, never by an argument.

    Attributes:
        student: the student's outputs, with gradient.
        teacher: the teacher's outputs, without gradient; `out` is None when there is no teacher.
        batch: the batch as the loader gave it.
        task: the supervised loss of any student-like output on this batch.
        progress: how much of the run is done, 0 → 1.
    """

    student: Output
    teacher: Output
    batch: Any
    task: Callable[[Any], Tensor]
    progress: float = 1.0

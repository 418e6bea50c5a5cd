"""What one forward pass gave, and everything that a method sees in one training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tutelage.core.batch import Batch
from tutelage.errors import UserError, near_misses

LOGITS = ("logits", "out")  # Hugging Face's name, and that of torchvision's segmentation networks


@dataclass(frozen=True)
class Output:
    """What one forward pass gave.

    Attributes:
        output: what the network returned: logits, a dict of detection losses, embeddings, ...
        features: recorded outputs of submodules, by the address that asked for them.
        role: what messages call the network: `network`, `student` or `teacher`.
    """

    output: Any
    features: Mapping[str, Tensor] = field(default_factory=dict)
    role: str = "network"

    @property
    def logits(self) -> Tensor:
        """The output as one tensor: itself, or its entry `logits` or `out`.

        Raises:
            UserError: If it is neither, or if there is no output because there is no teacher.
        """
        output = self.output
        if isinstance(output, Mapping):
            output = next((output[name] for name in LOGITS if name in output), output)
        if output is None:
            raise UserError(
                "the method needs a teacher's logits, but there is no teacher; give the recipe one"
            )
        if not isinstance(output, Tensor):
            raise UserError(
                f"the {self.role} gives a {type(output).__name__} without logits; "
                "a method on logits needs a tensor, or a mapping with 'logits' or 'out'"
            )
        return output

    def feature(self, name: str) -> Tensor:
        """Return the recorded output of a layer.

        Raises:
            UserError: If nothing was recorded under that name.
        """
        if name not in self.features:
            near = near_misses(name, self.features)
            raise UserError(f"no feature {name!r} of the {self.role} was recorded{near}")
        return self.features[name]


@dataclass(frozen=True)
class Step:
    """Everything that a method sees in one training step; it grows by fields, not by arguments.

    Attributes:
        student: the student's outputs, with gradient.
        teacher: the teacher's outputs, without gradient; `output` is None without a teacher.
        batch: the batch.
        task_loss: the supervised loss of any student-like output on this batch.
        progress: the share of the run that is done, 0 to 1.
    """

    student: Output
    teacher: Output
    batch: Batch
    task_loss: Callable[[Any], Tensor]
    progress: float = 1.0

"""How a student's layers approach the teacher's: a layer × layer map on a fixed probe batch."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import nn

from tutelage.analysis._inputs import Inputs, num_items, split_inputs
from tutelage.analysis.layer_cka import layer_map
from tutelage.analysis.layers import layers_of

LAYER_ITEMS = 4  # items with which the layers of a network are found


class LayerTracker:
    """Compares a student with its teacher on the same items whenever it is asked.

    Args:
        teacher: the network whose layers are the rows.
        inputs: positional arguments of a forward for the probe batch of at least 4 items.
    """

    def __init__(self, teacher: nn.Module, inputs: Inputs) -> None:
        self.teacher = teacher
        self.inputs = inputs
        self.rows = layers_of(teacher, split_inputs(inputs, LAYER_ITEMS)[0])

    def record(self, student: nn.Module) -> dict[str, Any]:
        """Return the map for the student as it is now.

        Returns:
            `rows`, `columns` (layer names), `samples` (items) and `value` (CKA, None where it is
            undefined).
        """
        # Hooks that are set on a compiled network after its first call are never called.
        student = copy.deepcopy(student)
        columns = layers_of(student, split_inputs(self.inputs, LAYER_ITEMS)[0])
        value = layer_map([self.teacher, student], [self.rows, columns], self.inputs)
        return {
            "rows": self.rows,
            "columns": columns,
            "samples": num_items(self.inputs),
            "value": [[_rounded(cell) for cell in row] for row in value],
        }


def _rounded(value: float) -> float | None:
    """Return a value for JSON, which has no NaN."""
    return round(value, 6) if math.isfinite(value) else None

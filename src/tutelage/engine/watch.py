"""How the student's layers move towards the teacher's: a layer × layer map on a fixed probe batch, every few epochs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tutelage.engine.compare import layer_map
from tutelage.engine.layers import layers_of

PROBES = 256


class LayerWatch:
    """Compares a student with its teacher on the same images whenever it is asked.

    Args:
        teacher: the network whose layers are the rows.
        images: the probe batch (N, C, H, W), N of at least 4.
    """

    def __init__(self, teacher: nn.Module, images: Tensor) -> None:
        self.teacher, self.images = teacher, images
        self.rows = layers_of(teacher, (images[:4],))

    def record(self, student: nn.Module) -> dict[str, Any]:
        """Return rows, columns, samples and value (CKA, None where it is not defined) for the student as it is now."""
        student = copy.deepcopy(student)  # hooks that are set after torch.compile would never be called
        columns = layers_of(student, (self.images[:4],))
        value = layer_map([self.teacher, student], [self.rows, columns], self.images)
        return {"rows": self.rows, "columns": columns, "samples": len(self.images), "value": _json(value)}


def _json(value: Sequence[Sequence[float]]) -> list[list[float | None]]:
    return [[round(v, 6) if math.isfinite(v) else None for v in row] for row in value]

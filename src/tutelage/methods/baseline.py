"""The student without a teacher: the baseline of every comparison."""

from __future__ import annotations

from torch import Tensor

from tutelage.core.method import Method, MethodInfo
from tutelage.core.output import Step


class Baseline(Method):
    """Train the student on its labels alone; there is no term besides `task`.

    >>> Baseline()
    Baseline()
    """

    info = MethodInfo(
        paper="none: the baseline of every comparison",
        tasks="all",
        needs="no teacher; one that is given is only compared with at the end",
    )
    uses_teacher = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Return no terms."""
        return {}

"""Where methods on logits find them: in the output, or in a layer of both networks."""

from __future__ import annotations

from torch import Tensor

from tutelage.core.output import Step
from tutelage.errors import UserError


def check_logits_layer(method: str, layer: object) -> tuple[str, ...]:
    """Return the layers that a method has to record: the one that is given, or none.

    >>> check_logits_layer("KD", "roi_heads.box_predictor[0]")
    ('roi_heads.box_predictor[0]',)

    Raises:
        UserError: If it is neither a name nor None.
    """
    if layer is None:
        return ()
    if not isinstance(layer, str):
        raise UserError(f"the logits_layer of {method} is the name of a layer, got {layer!r}")
    return (layer,)


def logits_of(step: Step, layer: str | None) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's logits, (N, C, ...).

    Args:
        step: of training.
        layer: of both networks; None takes their outputs.
    """
    if layer is None:
        return step.student.logits, step.teacher.logits
    return step.student.feature(layer), step.teacher.feature(layer)

"""Parts that several methods share: both networks' logits, a look at values before training, a fade-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tutelage.core import Step
from tutelage.errors import UserError


def both_logits(step: Step) -> tuple[Tensor, Tensor]:
    """Return the student's and the teacher's logits; a network may return them, or a mapping with `logits`.

    >>> import torch
    >>> from tutelage.core import Output
    >>> out = Output({"logits": torch.zeros(2, 3)})
    >>> [tuple(z.shape) for z in both_logits(Step(out, Output(torch.ones(2, 3)), None, lambda out: out))]
    [(2, 3), (2, 3)]

    Raises:
        UserError: one of them gave no logits, for instance because there is no teacher.
    """
    return _logits(step.student.out, "student"), _logits(step.teacher.out, "teacher")


def check_finite(named: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity; for `setup` only, since a look at the values makes an accelerator wait.

    >>> import torch
    >>> check_finite({"the teacher's logits": torch.tensor([1.0, torch.nan])})
    Traceback (most recent call last):
    tutelage.errors.UserError: the teacher's logits hold NaN or infinity; check its weights and input scaling

    Raises:
        UserError: a tensor holds NaN or infinity; the message has its name.
    """
    for name, tensor in named.items():
        if not tensor.isfinite().all():
            raise UserError(f"{name} hold NaN or infinity; check its weights and input scaling")


def fade_in(progress: float, ramp: tuple[float, float] | None) -> float:
    """Return 0 up to the first point of the ramp, 1 from the second on, linear in between; 1 without a ramp.

    >>> fade_in(0.2, (0.3, 0.7)), round(fade_in(0.4, (0.3, 0.7)), 6), fade_in(0.7, (0.3, 0.7)), fade_in(0.0, None)
    (0.0, 0.25, 1.0, 1.0)

    Args:
        progress: share of the run that is done, 0 to 1.
        ramp: start and stop as shares of the run, 0 ≤ start ≤ stop ≤ 1.
    """
    if ramp is None or progress >= ramp[1]:
        return 1.0
    start, stop = ramp
    return 0.0 if progress <= start else (progress - start) / (stop - start)


def _logits(out: Any, who: str) -> Tensor:
    logits = out.get("logits") if isinstance(out, Mapping) else out
    if isinstance(logits, Tensor):
        return logits
    if out is None:
        raise UserError(f"the method learns from logits, but there is no {who}; give the recipe one")
    raise UserError(
        f"the method learns from logits, but the {who} returned a {type(out).__name__} without them; "
        "let it return a tensor or a mapping with 'logits'"
    )

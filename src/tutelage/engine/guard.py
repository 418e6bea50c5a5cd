"""Before the first step: does every term reach the student, and how hard does each one pull?

A term whose gradient never arrives is the commonest silent failure of distillation code, and a term that pulls a
hundred times harder than the labels is the second. Both are visible in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Distiller
from tutelage.engine.probe import reason
from tutelage.errors import NonFiniteError, UserError

LOUD = 10.0
NUDGE = 0.01


@dataclass(frozen=True)
class TermScale:
    """One term before the first step, at its full weight (as at the end of a ramp).

    Attributes:
        term: its name.
        value: its weighted value.
        gradient: norm of its gradient on the student's parameters.
        ratio: that norm over the supervised loss's at weight 1; None without a task term.
    """

    term: str
    value: float
    gradient: float
    ratio: float | None

    def warning(self) -> str | None:
        """Return a sentence when the term drowns the labels, or waits for them."""
        if self.gradient == 0.0:
            return (
                f"the term '{self.term}' has no gradient yet, since the student starts with a classifier of zeros or "
                "as its teacher's copy; it acts as soon as other terms move the student, and hard: set train.clip_norm"
            )
        if self.ratio is None or self.ratio <= LOUD or self.term == "task":
            return None
        return (
            f"the term '{self.term}' pulls {self.ratio:.0f}x harder on the student than the labels at its full weight; "
            "if the run does not learn, ramp it in or lower its weight"
        )

    def record(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


def check_terms(distiller: Distiller, batch: Any) -> list[TermScale]:
    """Measure every term on one batch in train mode; leaves weights, buffers, gradients and random state as they are.

    A term without gradient is tried again with the student's weights a little off: a classifier that starts at zero, or
    a student that starts as its teacher's copy, silences some losses at that very point only.

    Raises:
        NonFiniteError: a term is NaN or infinite.
        UserError: a term sends no gradient to the student, there and beside it, or all are silent.
    """
    parameters = [p for p in distiller.student.parameters() if p.requires_grad]
    with _untouched(distiller), torch.enable_grad():
        terms = _first_step(distiller, batch)
        norms = _gradient_norms(terms, parameters)
        beside = norms if all(norms.values()) or not any(norms.values()) else _nudged(distiller, batch, parameters)
    values = {name: float(value.detach()) for name, value in terms.items()}
    refuse_non_finite(values, "before the first step")
    for name, norm in norms.items():
        if norm == 0.0 == beside.get(name, 0.0):
            raise UserError(
                f"the term '{name}' sends no gradient to the student; check its taps, its weight and the batch size"
            )
    task = norms["task"] / distiller.method.task_weight if "task" in norms else None
    return [TermScale(name, values[name], norms[name], None if task is None else norms[name] / task) for name in terms]


@torch.no_grad()
def check_end(distiller: Distiller, batch: Any) -> None:
    """Look at every term once more after the last step, which no later one judges; leaves all as it is.

    Raises:
        NonFiniteError: a term is NaN or infinite.
    """
    with _untouched(distiller):
        terms = distiller(batch, progress=1.0)
    refuse_non_finite({name: float(value) for name, value in terms.items()}, "after the last step")


@contextmanager
def _untouched(distiller: Distiller) -> Iterator[None]:
    """Put buffers and random state back at the end."""
    buffers = {name: value.detach().clone() for name, value in distiller.named_buffers()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
    with torch.no_grad():
        for name, value in distiller.named_buffers():
            value.copy_(buffers[name])


def _first_step(distiller: Distiller, batch: Any) -> dict[str, Tensor]:
    try:
        terms: dict[str, Tensor] = distiller(batch, progress=1.0)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the first training step fails: {reason(error)}; check that networks and task have the data's classes"
        ) from error
    return terms


def refuse_non_finite(values: dict[str, float], where: str) -> None:
    """Stop at the first term that is NaN or infinite, with its name."""
    for name, value in values.items():
        if not abs(value) < float("inf"):
            raise NonFiniteError(
                name,
                f"the term '{name}' became {value} {where}; lower the learning rate or its weight, or check the data",
            )


def _gradient_norms(terms: dict[str, Tensor], parameters: list[torch.nn.Parameter]) -> dict[str, float]:
    return {name: _gradient_norm(value, parameters) for name, value in terms.items()}


def _nudged(distiller: Distiller, batch: Any, parameters: list[torch.nn.Parameter]) -> dict[str, float]:
    """Return the norms of the gradients beside the student's weights, which are put back."""
    kept = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p in parameters:
                p.add_(NUDGE * torch.randn_like(p))
        return _gradient_norms(_first_step(distiller, batch), parameters)
    finally:
        with torch.no_grad():
            for p, value in zip(parameters, kept, strict=True):
                p.copy_(value)


def _gradient_norm(term: Tensor, parameters: list[torch.nn.Parameter]) -> float:
    if not term.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    norms = [g.float().norm() for g in gradients if g is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0

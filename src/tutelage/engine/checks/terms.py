"""Check every term before the first step: does it reach the student, and how hard does it pull?

A term whose gradient never arrives is the commonest silent failure of distillation code, and a term
that pulls a hundred times harder than the labels is the second. Both are visible in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core import Batch, Distiller
from tutelage.core._checks import blame_reentrant
from tutelage.errors import NonFiniteError, UserError, reason

MAX_RATIO = 10.0
PERTURBATION = 0.01


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

    def warning(self, is_capped: bool = False) -> str | None:
        """Return a warning if the term drowns out the labels or has no gradient yet, else None.

        Args:
            is_capped: whether a `GradientCap` keeps it from drowning out the labels.
        """
        if self.gradient == 0.0:
            return (
                f"the term '{self.term}' has no gradient yet, since the student starts with a "
                "classifier of zeros or as its teacher's copy; it acts as soon as other terms move "
                "the student, and hard: set train.max_grad_norm"
            )
        if is_capped or self.ratio is None or self.ratio <= MAX_RATIO or self.term == "task":
            return None
        return (
            f"the term '{self.term}' pulls {self.ratio:.0f}x harder on the student than the labels "
            "at its full weight; set train.gradient_cap, or lower its weight"
        )

    def record(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def check_terms(distiller: Distiller, batch: Batch) -> list[TermScale]:
    """Measure every term on one batch in train mode.

    Weights, buffers, gradients and the random state stay as they are. A term without gradient is
    tried again with slightly perturbed weights: a classifier that starts at zero, or a student that
    starts as its teacher's copy, silences some losses at that very point only.

    Raises:
        NonFiniteError: If a term is NaN or infinite.
        UserError: If a term sends no gradient to the student, neither at the weights nor beside
            them, if all terms are silent, or if the student uses reentrant checkpointing.
    """
    parameters = [p for p in distiller.student.parameters() if p.requires_grad]
    with _restored(distiller), torch.enable_grad():
        terms = _first_step(distiller, batch)
        norms = _gradient_norms(terms, parameters)
        some_are_silent = any(norms.values()) and not all(norms.values())
        perturbed = _norms_nearby(distiller, batch, parameters) if some_are_silent else norms
    values = {name: float(value.detach()) for name, value in terms.items()}
    refuse_non_finite(values, "before the first step")
    for name, norm in norms.items():
        if norm == 0.0 and perturbed.get(name, 0.0) == 0.0:
            raise UserError(
                f"the term '{name}' sends no gradient to the student; "
                "check its layers, its weight and the batch size"
            )
    task_norm = None
    if "task" in norms:
        task_norm = norms["task"] / distiller.method.task_weight
    return [
        TermScale(
            term=name,
            value=values[name],
            gradient=norms[name],
            ratio=None if task_norm is None else norms[name] / task_norm,
        )
        for name in terms
    ]


@torch.no_grad()
def check_after_last_step(distiller: Distiller, batch: Batch) -> None:
    """Compute every term once more after the last step, whose result no later step would check.

    Raises:
        NonFiniteError: If a term is NaN or infinite.
    """
    with _restored(distiller):
        terms = distiller(batch, progress=1.0)
    values = {name: float(value) for name, value in terms.items()}
    refuse_non_finite(values, "after the last step")


def refuse_non_finite(values: Mapping[str, float], where: str) -> None:
    """Raise at the first term that is NaN or infinite.

    Raises:
        NonFiniteError: With the name of the term.
    """
    for name, value in values.items():
        if not abs(value) < float("inf"):
            raise NonFiniteError(
                name,
                f"the term '{name}' became {value} {where}; "
                "lower the learning rate or its weight, or check the data",
            )


@contextmanager
def _restored(distiller: Distiller) -> Iterator[None]:
    """Restore buffers and the random state after the block."""
    buffers = {name: value.detach().clone() for name, value in distiller.named_buffers()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
    with torch.no_grad():
        for name, value in distiller.named_buffers():
            value.copy_(buffers[name])


def _first_step(distiller: Distiller, batch: Batch) -> dict[str, Tensor]:
    try:
        terms: dict[str, Tensor] = distiller(batch, progress=1.0)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the first training step fails: {reason(error)}; "
            "check that networks and task have the data's classes"
        ) from error
    return terms


def _norms_nearby(
    distiller: Distiller, batch: Batch, parameters: list[nn.Parameter]
) -> dict[str, float]:
    """Return the gradient norms at slightly perturbed weights, which are put back."""
    originals = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for p in parameters:
                p.add_(PERTURBATION * torch.randn_like(p))
        return _gradient_norms(_first_step(distiller, batch), parameters)
    finally:
        with torch.no_grad():
            for p, original in zip(parameters, originals, strict=True):
                p.copy_(original)


def _gradient_norms(terms: dict[str, Tensor], parameters: list[nn.Parameter]) -> dict[str, float]:
    return {name: _gradient_norm(value, parameters) for name, value in terms.items()}


def _gradient_norm(term: Tensor, parameters: list[nn.Parameter]) -> float:
    if not term.requires_grad:
        return 0.0
    # The graph is retained: the other terms share the student's forward pass.
    try:
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        blamed = blame_reentrant(error)
        if blamed is None:
            raise
        raise blamed from error
    norms = [g.float().norm() for g in gradients if g is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0

"""What is trained when in residual distillation; and its head, built from one real batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from tutelage.core import Output, Teacher
from tutelage.errors import UserError
from tutelage.methods.parts import fade_in
from tutelage.methods.residual_head import Joint, pooled
from tutelage.methods.residual_pair import ResidualPair

CLOSE = 1e-3
SCHEMES = ("joint", "end_to_end", "stagewise")


@dataclass(frozen=True)
class Scheme:
    """What is trained when; all points in time are shares of the run.

    Args:
        name: "joint", with L_A from `warmup` on, since the residual is noise before the student settles; "end_to_end",
            with L_C in the place of L_A; "stagewise", one part after the other.
        warmup: how long "joint" goes without L_A.
        phases: when "stagewise" goes on from the student to the assistants, and to the head.
    """

    name: str = "joint"
    warmup: float = 0.1
    phases: tuple[float, float] = (0.5, 0.9)

    def __post_init__(self) -> None:
        if self.name not in SCHEMES:
            raise UserError(f"scheme.name is one of {SCHEMES}, got {self.name!r}")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"scheme.warmup is a share of the run, 0 to 1, got {self.warmup}")
        if not 0 < self.phases[0] <= self.phases[1] <= 1:
            raise UserError(f"scheme.phases are (start of the assistants, of the head) in (0, 1], got {self.phases}")

    def assistant(self, progress: float) -> float:
        """Return the factor of L_A or L_C.

        >>> Scheme().assistant(0.05), Scheme().assistant(0.1)
        (0.0, 1.0)
        """
        return fade_in(progress, (self.warmup, self.warmup) if self.name == "joint" else None)

    def phase(self, progress: float) -> int:
        """Return 0, 1 or 2 for the student, the assistants or the head.

        >>> [Scheme("stagewise").phase(p) for p in (0.0, 0.5, 0.9, 1.0)]
        [0, 1, 2, 2]
        """
        return sum(progress >= start for start in self.phases)

    @property
    def stagewise(self) -> bool:
        """Whether one part is trained after the other."""
        return self.name == "stagewise"

    def check_processes(self) -> None:
        """Refuse parts that have no gradient for a while under several processes."""
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if self.stagewise and several:
            raise UserError("the scheme 'stagewise' trains its parts in turn, in one process; take 'joint'")


def join(pair: ResidualPair, rows: Sequence[Sequence[Tensor]], told: Sequence[Tensor], head: nn.Linear) -> None:
    """Give a pair its joint head.

    Args:
        pair: whose members get adapters.
        rows: per pair of taps the features of all members.
        told: the teacher's, whose widths the adapters have.
        head: the classifier of the joined features of the last pair.
    """
    pair.join(Joint([adapters(row, x.shape[1]) for row, x in zip(rows, told, strict=True)], head))


def adapters(raw: Sequence[Tensor], width: int) -> list[nn.Linear]:
    """Return an adapter to the teacher's width for every member; the assistants' start at zero, so that f̂ = f_S."""
    made = [nn.Linear(x.shape[1], width, device=x.device) for x in raw]
    for adapter in made[1:]:
        nn.init.zeros_(adapter.weight)
        nn.init.zeros_(adapter.bias)
    return made


def teachers_head(teacher: Teacher, name: str, tap: Tensor, output: Output) -> nn.Linear:
    """Return a copy of the teacher's classifier, which must give the teacher's logits of the pooled tap."""
    found = teacher.module(name)
    check_classifiers([found], [tap], output.logits, "the teacher")
    head = copy.deepcopy(found)
    assert isinstance(head, nn.Linear)
    return head


def check_classifiers(classifiers: Sequence[nn.Module], raw: Sequence[Tensor], logits: Tensor, whose: str) -> None:
    """Make sure that classifiers on the pooled taps give a network's logits.

    Raises:
        UserError: one is not linear, is of another width, or what comes out differs; `whose` says of which tap.
    """
    total = torch.zeros_like(logits)
    for classifier, x in zip(classifiers, raw, strict=True):
        if not isinstance(classifier, nn.Linear):
            raise UserError(f"the classifier of {whose} is a {type(classifier).__name__}, but must be a linear layer")
        if classifier.in_features != x.shape[1]:
            raise UserError(
                f"the classifier of {whose} takes {classifier.in_features} features, but the tap gives {x.shape[1]}; "
                "let the last pair name the layers before the global pooling"
            )
        total = total + F.linear(pooled(x), classifier.weight, classifier.bias)
    if (total - logits).abs().max() > CLOSE * logits.abs().max().clamp(min=1.0):
        raise UserError(
            f"the classifier of {whose} does not see the tap's mean over positions; let the last pair name the layers "
            "before the global average pooling"
        )

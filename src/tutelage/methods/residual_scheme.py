"""What is trained when in residual distillation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import distributed

from tutelage.errors import UserError
from tutelage.methods.parts import fade_in

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
        if len(self.phases) != 2 or not 0 < self.phases[0] <= self.phases[1] <= 1:
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

    @property
    def tries(self) -> tuple[float, ...]:
        """Points in time at which every term and every phase has been seen once."""
        return (0.0, self.phases[0], 1.0) if self.stagewise else (1.0,)

    def check_weights(self, task_weight: float, assistant: float) -> None:
        """Refuse labels beside "stagewise", and assistants that learn nothing."""
        if self.stagewise and task_weight:
            raise UserError(f"'stagewise' has the labels in its own term; set task_weight to 0, not {task_weight}")
        if not (self.stagewise or task_weight or assistant):
            raise UserError("the assistants learn nothing: give assistant or task_weight a weight")

    def check_processes(self) -> None:
        """Refuse parts that have no gradient for a while under several processes."""
        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if self.stagewise and several:
            raise UserError("the scheme 'stagewise' trains its parts in turn, in one process; take 'joint'")

"""What is known of a trial, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tutelage.tune.candidates import Candidate

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

State = Literal["done", "stopped", "failed", "running"]
STATES: dict[str, State] = {
    "COMPLETE": "done",
    "PRUNED": "stopped",
    "FAIL": "failed",
    "RUNNING": "running",
}


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        position: among all trials of the search, from 0.
        method: name of its recipe.
        number: among the trials of its recipe, from 0, which has the recipe's own numbers.
        values: its numbers by name.
        state: `stopped` is ended early, `running` is interrupted.
        curve: (epoch, score so far) of every validation.
        seconds: of training; None if it did not end.
        error: why it failed.
    """

    position: int
    method: str
    number: int
    values: Mapping[str, float]
    state: State
    curve: tuple[tuple[int, float], ...]
    seconds: float | None
    error: str | None

    @property
    def score(self) -> float | None:
        """The last score; None before the first validation."""
        return self.curve[-1][1] if self.curve else None

    @property
    def epochs(self) -> int:
        """The epoch of the last validation."""
        return self.curve[-1][0] if self.curve else 0

    def score_from(self, epoch: int) -> float | None:
        """Return the first score at an epoch or later; None if the trial did not come so far."""
        return next((score for at, score in self.curve if at >= epoch), None)

    def as_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**asdict(self), "score": self.score, "epochs": self.epochs}


def record_of(trial: FrozenTrial, position: int, candidate: Candidate) -> TrialRecord:
    """Return the record of one of Optuna's trials.

    Args:
        trial: of Optuna.
        position: among all trials.
        candidate: its recipe.
    """
    values = {
        number.name: number.rounded(trial.params[number.name])
        for number in candidate.numbers
        if number.name in trial.params
    }
    return TrialRecord(
        position=position,
        method=candidate.name,
        number=trial.number,
        values=values,
        state=STATES[trial.state.name],
        curve=tuple(sorted(trial.intermediate_values.items())),
        seconds=trial.user_attrs.get("seconds"),
        error=trial.user_attrs.get("error"),
    )

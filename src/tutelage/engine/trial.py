"""One trial of a search: a recipe is trained and judged on validation data; test data is not read.

The trial is a run without its end: nothing is evaluated on test data, and no student is shipped.
The same recipe in `tutelage train` gives the same figures on validation data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.engine.checks.terms import check_terms
from tutelage.engine.interrupt import Interrupt
from tutelage.engine.ranks import launched_world
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.setup import Setup, TrainingSetup, make_accelerator
from tutelage.engine.teacher_metrics import checked_metrics
from tutelage.engine.trainer import Trainer
from tutelage.errors import UserError
from tutelage.recipes.config import Recipe

TEST = "test"
VALIDATION = "validation"


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        score: the task's monitor on validation data, of the epoch that the recipe would ship.
        epochs: how many were trained.
        seconds: of training, without validation.
        is_stopped: whether it was ended early.
    """

    score: float
    epochs: int
    seconds: float
    is_stopped: bool


def run_trial(
    recipe: Recipe, out: Path, text: str, stops: Callable[[int, float], bool]
) -> TrialResult | None:
    """Train a recipe, whose teachers are trained, and return its score on validation data.

    A trial that was interrupted goes on from its newest checkpoint.

    Args:
        recipe: what to run, with teachers that have their weights.
        out: folder of the trial, see `engine.run_folder`; its checkpoints stay.
        text: the recipe as text.
        stops: called after each validation with the epoch and the score so far, again for those
            before an interruption; True ends the trial there.

    Returns:
        The result, or None if the trial was interrupted.

    Raises:
        UserError: As `fit`; also for several processes.
        NonFiniteError: If a term or a weight became NaN or infinite.
    """
    check_one_process()
    folder = RunFolder(out)
    folder.check(text, resume=True)
    with folder.claimed():
        accelerator = make_accelerator(recipe.train, folder.path)
        setup = Setup.of(recipe)
        ready = TrainingSetup.of(setup, accelerator)
        setup.parts = {name: part for name, part in setup.parts.items() if name != TEST}
        ready.distiller.method.on_train_start()
        checked_metrics(ready)
        folder.create(text)
        scores = _Scores(recipe, folder, stops)
        trainer = Trainer(ready, accelerator, folder, ends_early=scores.stop)
        if not trainer.restore():
            folder.rewind(-1)
            check_terms(ready.distiller, ready.example)
        with Interrupt() as interrupt:
            is_done = trainer.run(interrupt)
    if not is_done:
        return None
    is_stopped = scores.stop() and trainer.step < trainer.total
    epochs = trainer.step // trainer.steps_per_epoch
    return TrialResult(scores.score, epochs, round(trainer.seconds, 3), is_stopped)


def check_one_process() -> None:
    """Refuse several processes, whose group would end with the first trial.

    Raises:
        UserError: If a launcher started several.
    """
    if launched_world() > 1:
        raise UserError(
            f"{launched_world()} processes were launched, and trials run in one; start the command "
            "without a launcher"
        )


def check_has_validation(recipe: Recipe) -> None:
    """Raise unless the data has a part to choose by.

    Raises:
        UserError: If there is no validation part, or it is empty.
    """
    parts = recipe.data.splits(recipe.num_labels, recipe.seed)
    if VALIDATION not in parts or not len(parts[VALIDATION]):
        raise UserError(
            f"{type(recipe.data).__name__} has no validation part, and values are chosen on "
            "validation data alone; let its splits() give one"
        )


class _Scores:
    """Hands the score after each validation on, as the run's log has it.

    Args:
        recipe: of the trial.
        folder: of the trial.
        stops: as `run_trial`.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, stops: Callable[[int, float], bool]
    ) -> None:
        self.score = math.nan
        self._monitor = recipe.task.monitor
        self._takes_best = recipe.train.checkpoint == "best"
        self._folder = folder
        self._stops = stops
        self._read = 0
        self._is_stopped = False

    def stop(self) -> bool:
        """Hand on what is new, and return whether the trial ends."""
        records = self._folder.records()
        for record in records[self._read :]:
            score = record["validation"].get(self._monitor)
            if score is None:
                continue
            is_better = score > self.score or math.isnan(self.score)
            if is_better or not self._takes_best:
                self.score = score
            self._is_stopped = self._stops(record["epoch"], self.score) or self._is_stopped
        self._read = len(records)
        return self._is_stopped

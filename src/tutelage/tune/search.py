"""The search itself: an Optuna study for each recipe, all in one SQLite file.

Recipes take turns, so that each gets the same number of trials and none wins by more tries. The
first trial of a recipe has its own numbers; the others are drawn by Optuna's TPE sampler, with a
seed for each trial, so that an interrupted search draws what it would have drawn. Successive
halving ends a trial that is not among the best third of its recipe's that came as far; scores of
different methods after a few epochs say nothing of their ends, so that these are not compared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import NotInstalledError, UserError
from tutelage.tune.candidates import Candidate
from tutelage.tune.records import TrialRecord, record_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage

PREFIX = "tutelage tune: "  # of the names of Optuna's studies
REDUCTION = 3  # one trial in so many goes on at a rung
FIRST_SHARE = 9  # the first rung is this part of the epochs, the next one REDUCTION times later
BUSY_SECONDS = 60.0  # to wait for another program that reads the file


@dataclass(frozen=True)
class Drawn:
    """A trial that was drawn and waits to be run.

    Attributes:
        position: among all trials of the search, from 0.
        candidate: its recipe.
        values: its numbers by name.
        reported: the epochs whose scores are known from before an interruption.
        trial: Optuna's.
    """

    position: int
    candidate: Candidate
    values: Mapping[str, float]
    reported: frozenset[int]
    trial: Trial

    @property
    def number(self) -> int:
        """The number of the trial among those of its recipe, from 0."""
        return int(self.trial.number)

    def report(self, epoch: int, score: float) -> bool:
        """Store the score after an epoch; return whether the trial ends there."""
        if epoch in self.reported:
            return False
        self.trial.report(score, epoch)
        return self.trial.should_prune()


class Search:
    """A search over recipes and their numbers; higher scores are better.

    Args:
        database: the SQLite file; it is made if it is missing.
        candidates: the recipes, in the order of their turns.
        seed: of the draws.
    """

    def __init__(self, database: Path, candidates: Sequence[Candidate], seed: int) -> None:
        self._candidates = candidates
        self._seed = seed
        self._storage = _storage(database)
        self._studies = [self._study(candidate) for candidate in candidates]

    def next(self, wanted: int) -> Drawn | None:
        """Return the next trial: one that was interrupted, or a new one; None after `wanted`."""
        known = [study.get_trials(deepcopy=False) for study in self._studies]
        for position in range(wanted):
            number, turn = divmod(position, len(self._candidates))
            state = known[turn][number].state.name if number < len(known[turn]) else "NEW"
            if state in ("NEW", "RUNNING", "WAITING"):
                return self._begun(position, state)
        return None

    def finish(self, drawn: Drawn, score: float, seconds: float, is_stopped: bool) -> None:
        """Store the end of a trial."""
        from optuna.trial import TrialState

        drawn.trial.set_user_attr("seconds", seconds)
        if is_stopped:
            self._study_of(drawn).tell(drawn.trial, state=TrialState.PRUNED)
        elif score != score:
            self.fail(drawn, "its score on validation data is NaN")
        else:
            self._study_of(drawn).tell(drawn.trial, score)

    def fail(self, drawn: Drawn, why: str) -> None:
        """Store that a trial cannot be used, and why."""
        from optuna.trial import TrialState

        drawn.trial.set_user_attr("error", why)
        self._study_of(drawn).tell(drawn.trial, state=TrialState.FAIL)

    def records(self) -> list[TrialRecord]:
        """Return what is known of every trial that was begun, in order."""
        records = []
        for turn, candidate in enumerate(self._candidates):
            for trial in self._studies[turn].get_trials(deepcopy=False):
                if trial.state.name != "WAITING":
                    position = trial.number * len(self._candidates) + turn
                    records.append(record_of(trial, position, candidate))
        return sorted(records, key=lambda record: record.position)

    def _begun(self, position: int, state: str) -> Drawn:
        """Draw the numbers of a trial, or take them up again if it was left."""
        number, turn = divmod(position, len(self._candidates))
        study = self._studies[turn]
        self._seed_for(study, number)
        if state == "NEW" and number == 0:
            study.enqueue_trial(self._candidates[turn].own())
        trial = self._left(study, number) if state == "RUNNING" else study.ask()
        values = {}
        for searched in self._candidates[turn].numbers:
            drawn = trial.suggest_float(searched.name, searched.low, searched.high, log=True)
            values[searched.name] = searched.rounded(drawn)
        reported = study.get_trials(deepcopy=False)[number].intermediate_values
        return Drawn(position, self._candidates[turn], values, frozenset(reported), trial)

    def _study(self, candidate: Candidate) -> Study:
        import optuna

        return optuna.create_study(
            study_name=f"{PREFIX}{candidate.name}",
            storage=self._storage,
            direction="maximize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=first_rung(candidate), reduction_factor=REDUCTION
            ),
            load_if_exists=True,
        )

    def _study_of(self, drawn: Drawn) -> Study:
        return self._studies[drawn.position % len(self._candidates)]

    def _left(self, study: Study, number: int) -> Trial:
        """Return a trial that a process left when it ended, to go on with it."""
        from optuna.trial import Trial

        known = self._storage.get_study_id_from_name(study.study_name)
        return Trial(study, self._storage.get_trial_id_from_study_id_trial_number(known, number))

    def _seed_for(self, study: Study, number: int) -> None:
        from optuna.samplers import TPESampler

        study.sampler = TPESampler(seed=(self._seed * 100_003 + number) % 2**32)


def first_rung(candidate: Candidate) -> int:
    """Return the epoch, with a validation, from which on trials end that are not the best third."""
    train = candidate.recipe.config.train
    eval_every = int(train.eval_every)
    share = -(-int(train.epochs) // FIRST_SHARE)
    return -(-share // eval_every) * eval_every


def check_installed() -> None:
    """Raise unless Optuna is there.

    Raises:
        UserError: If it is not.
    """
    if find_spec("optuna") is None:
        raise NotInstalledError("tune", "optuna")


def check_database(path: Path) -> None:
    """Raise if a file is not that of a search; it is only read.

    Raises:
        UserError: If it holds something else.
    """
    if not path.exists() or path.stat().st_size == 0:  # nothing, or killed when it was made
        return
    fix = "choose another --out"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            tables = {row[0] for row in file.execute("select name from sqlite_master")}
            is_optuna = {"studies", "trials"} <= tables
            rows = file.execute("select study_name from studies") if is_optuna else ()
            names = [str(row[0]) for row in rows]
    except sqlite3.Error as error:
        raise UserError(f"{path} is not the file of a search ({error}); {fix}") from None
    others = [name for name in names if not name.startswith(PREFIX)]
    if others or not is_optuna:
        found = f"the Optuna study {others[0]!r}" if others else "other tables"
        raise UserError(f"{path} is not the file of a search by tune: it holds {found}; {fix}")


def _storage(database: Path) -> BaseStorage:
    """Return Optuna's storage in a file."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def connect() -> sqlite3.Connection:  # a URL would cut a path at its first `?`
        return sqlite3.connect(database, timeout=BUSY_SECONDS)

    try:
        return optuna.storages.RDBStorage(
            f"sqlite:///{database.name}", engine_kwargs={"creator": connect}
        )
    except RuntimeError as error:
        raise UserError(
            f"{database} cannot be used by this version of optuna ({str(error).splitlines()[0]}); "
            "take the version that wrote it, or choose another --out"
        ) from error

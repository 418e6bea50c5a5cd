"""The folder of a search.

tune.db          Optuna's studies, in SQLite: every trial with its numbers and its scores
recipes/         the recipe of each method as it was given, every default filled in
trials/kd/0007/  the run of a trial: recipe, log, and its checkpoints until it ends
trials/kd/0007.txt    what it printed
trials/baseline  the run of the student without a method, and baseline.json, its score
tune.json        the outcome: trials, the best of them, what each number matters
best.yaml        the best recipe, to be trained and judged on test data
baseline.yaml    the same without a method, to compare it with
run.lock         host and process of the search that is under way
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from tutelage.engine.lock import LOCK, locked
from tutelage.engine.run_folder import RunFolder, check_same_recipe
from tutelage.errors import UserError
from tutelage.io import is_temporary, remove_leftovers, write_text
from tutelage.tune.candidates import Candidate
from tutelage.tune.search import check_database

BEFORE_DATABASE = {LOCK, "recipes"}


class TuneFolder:
    """The folder of a search.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "tune.db"

    @property
    def outcome(self) -> Path:
        """The outcome as JSON."""
        return self.path / "tune.json"

    @property
    def best(self) -> Path:
        """The best recipe."""
        return self.path / "best.yaml"

    @property
    def baseline(self) -> Path:
        """The same without a method."""
        return self.path / "baseline.yaml"

    @property
    def trials(self) -> Path:
        """The folder of the trials."""
        return self.path / "trials"

    @property
    def baseline_score(self) -> Path:
        """The score of the student without a method."""
        return self.trials / "baseline.json"

    def trial(self, method: str, number: int) -> Path:
        """Return the folder of a trial, by its recipe and its number among the recipe's."""
        return self.trials / method / f"{number:04d}"

    def recipe(self, name: str) -> Path:
        """Return the file of a recipe as it was given."""
        return self.path / "recipes" / f"{name}.yaml"

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Check that the folder can be used for these recipes; nothing is written.

        Raises:
            UserError: If it holds something else, or a search over other recipes; if it cannot be
                made.
        """
        if not self.path.exists():
            RunFolder(self.path).check("", resume=False)
            return
        if not self.path.is_dir() or self._is_of_others():
            raise UserError(f"{self.path} exists and is no search of ours; choose another --out")
        check_database(self.database)
        before = {path.stem for path in self.recipe("any").parent.glob("*.yaml")}
        now = {candidate.name for candidate in candidates}
        if not before <= now:
            raise UserError(
                f"{self.path} is a search over {', '.join(sorted(before))} already; name them all "
                "in --methods, others beside them if you like, or choose another --out"
            )
        for candidate in candidates:
            if self.recipe(candidate.name).exists():
                check_same_recipe(self.recipe(candidate.name), candidate.source.text())

    @contextmanager
    def claimed(self, candidates: Sequence[Candidate]) -> Iterator[None]:
        """Make the folder, write the recipes, and have it for this process alone.

        Raises:
            FolderInUseError: If another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            self.check(candidates)  # once more: another process may have been here until now
            remove_leftovers(self.path)
            self.recipe("any").parent.mkdir(exist_ok=True)
            for candidate in candidates:
                if not self.recipe(candidate.name).exists():
                    write_text(self.recipe(candidate.name), candidate.source.text())
            yield

    def clean(self, method: str, number: int) -> None:
        """Remove the checkpoints of a trial that has ended."""
        RunFolder(self.trial(method, number)).remove_checkpoints()

    @contextmanager
    def printed_to(self, path: Path) -> Iterator[None]:
        """Let what a trial prints go to a file, as that of a study's runs does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            path.open("a", encoding="utf-8") as file,
            redirect_stdout(file),
            redirect_stderr(file),
        ):
            yield

    def discard(self) -> None:
        """Remove the folder, of which no trial came to anything."""
        for path in (self.recipe("any").parent, self.trials):
            shutil.rmtree(path, ignore_errors=True)
        self.database.unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            self.path.rmdir()

    def _is_of_others(self) -> bool:
        if self.database.exists():
            return False
        names = {path.name for path in self.path.iterdir() if not is_temporary(path)}
        return not names <= BEFORE_DATABASE

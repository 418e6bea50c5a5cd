"""Runs the trials of a search one after the other, each into a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tutelage.engine.trial import TrialResult, run_trial
from tutelage.errors import NonFiniteError
from tutelage.tune.candidates import Candidate
from tutelage.tune.folder import TuneFolder
from tutelage.tune.records import TrialRecord
from tutelage.tune.search import Drawn, Search


class Listener(Protocol):
    """Follows a search."""

    def begin(self, drawn: Drawn) -> None:
        """Called before a trial."""

    def epoch(self, drawn: Drawn, epoch: int, score: float) -> None:
        """Called after each validation of a trial."""

    def end(self, record: TrialRecord) -> None:
        """Called after a trial."""


def run_search(
    folder: TuneFolder,
    candidates: Sequence[Candidate],
    wanted: int,
    seed: int,
    listener: Listener,
) -> list[TrialRecord]:
    """Run trials until there are as many as wanted, those of earlier commands included.

    Args:
        folder: claimed.
        candidates: recipes whose teachers are trained.
        wanted: number of trials.
        seed: of the draws.
        listener: called before and after each trial, and at each validation.

    Returns:
        All trials.

    Raises:
        UserError: If a trial cannot run; it is taken up again by the next command.
        KeyboardInterrupt: If the search was interrupted; the trial under way is saved.
    """
    search = Search(folder.database, candidates, seed)
    for record in search.records():
        if record.state != "running":
            folder.clean(record.method, record.number)
    while (drawn := search.next(wanted)) is not None:
        listener.begin(drawn)
        try:
            result = _run(folder, drawn, listener)
        except NonFiniteError as error:
            search.fail(drawn, str(error))
        else:
            if result is None:
                raise KeyboardInterrupt
            search.finish(drawn, result.score, result.seconds, result.is_stopped)
        folder.clean(drawn.candidate.name, drawn.number)
        listener.end(next(r for r in search.records() if r.position == drawn.position))
    return search.records()


def _run(folder: TuneFolder, drawn: Drawn, listener: Listener) -> TrialResult | None:
    """Run one trial; None if it was interrupted."""
    out = folder.trial(drawn.candidate.name, drawn.number)
    parsed = drawn.candidate.with_numbers(drawn.values)

    def stops(epoch: int, score: float) -> bool:
        listener.epoch(drawn, epoch, score)
        return drawn.report(epoch, score)

    with folder.printed_to(out.with_name(f"{out.name}.txt")):
        return run_trial(parsed.build(), out, parsed.text(), stops)

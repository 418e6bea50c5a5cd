"""What a search found: the best recipe, what each number matters, and all trials as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tutelage.errors import UserError
from tutelage.io import write_json, write_text
from tutelage.provenance import provenance
from tutelage.tune.baseline import baseline_text
from tutelage.tune.candidates import Candidate, Number
from tutelage.tune.folder import TuneFolder
from tutelage.tune.records import TrialRecord
from tutelage.tune.search import REDUCTION, first_rung

FEW = 8  # trials of a method: with fewer, importance is not shown


def best_trial(records: Sequence[TrialRecord]) -> TrialRecord:
    """Return the trial with the highest score of those that ran to their end.

    Of equal ones it is the first, so that the recipe's own numbers stay where nothing beats them.

    Raises:
        UserError: If none ran to its end.
    """
    done = [record for record in records if record.state == "done" and record.score is not None]
    if not done:
        reasons = [record.error for record in records if record.error]
        why = f", the last since {reasons[-1]}" if reasons else ""
        raise UserError(
            f"none of {len(records)} trials ran to its end{why}; lower the learning rate, or give "
            "more --trials"
        )
    return max(done, key=lambda record: (record.score, -record.position))


def importance(
    numbers: Sequence[Number], records: Sequence[TrialRecord], epoch: int
) -> dict[str, Any] | None:
    """Return how much of the differences between trials each number explains, by fANOVA.

    Trials that were ended early say as much as the others about the first epochs, so the scores are
    those of the first validation at `epoch` or later, which all trials have.

    Args:
        numbers: of one recipe.
        records: its trials.
        epoch: the first at which trials are ended.

    Returns:
        `epoch`, `trials` and `shares` by name, which sum to 1; None for one number, for few trials,
        or if all scores are equal.
    """
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution

    scored = [(record, record.score_from(epoch)) for record in records]
    known = [(record, score) for record, score in scored if score is not None]
    known = [(record, score) for record, score in known if math.isfinite(score)]
    if len(numbers) < 2 or len(known) < FEW or len({score for _, score in known}) < 2:
        return None
    distributions: dict[str, BaseDistribution] = {
        number.name: FloatDistribution(number.low, number.high, log=True) for number in numbers
    }
    study = optuna.create_study(direction="maximize")
    for record, score in known:
        params = {
            number.name: min(max(record.values[number.name], number.low), number.high)
            for number in numbers
        }
        trial = optuna.trial.create_trial(params=params, distributions=distributions, value=score)
        study.add_trial(trial)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {"epoch": epoch, "trials": len(known), "shares": shares}


def write_outcome(
    folder: TuneFolder,
    candidates: Sequence[Candidate],
    records: Sequence[TrialRecord],
    baseline: float,
    seed: int,
) -> TrialRecord:
    """Write tune.json, best.yaml and baseline.yaml; return the best trial.

    Args:
        folder: of the search.
        candidates: the recipes.
        records: all trials.
        baseline: the score of the student without a method.
        seed: of the recipes.

    Raises:
        UserError: If no trial ran to its end; nothing is written.
    """
    best = best_trial(records)
    by_name = {candidate.name: candidate for candidate in candidates}
    monitor = candidates[0].source.monitor()
    methods = {}
    for name, candidate in by_name.items():
        own_records = [record for record in records if record.method == name]
        methods[name] = {
            "recipe": candidate.source.name,
            "own": candidate.own(),
            "ranges": {number.name: [number.low, number.high] for number in candidate.numbers},
            "first_rung": first_rung(candidate),
            "importance": importance(candidate.numbers, own_records, first_rung(candidate)),
        }
    content = {
        "provenance": provenance(),
        "monitor": monitor,
        "seed": seed,
        "reduction": REDUCTION,
        "methods": methods,
        "best": best.position,
        "baseline": baseline,
        "trials": [record.as_json() for record in records],
    }
    candidate = by_name[best.method]
    text = candidate.source_with_numbers(best.values).text()
    comment = _comment(candidate, best, records, baseline, monitor, seed)
    write_text(folder.best, comment + text)
    write_text(folder.baseline, baseline_text(candidate))
    write_json(folder.outcome, content)
    return best


def _comment(
    candidate: Candidate,
    best: TrialRecord,
    records: Sequence[TrialRecord],
    baseline: float,
    monitor: str,
    seed: int,
) -> str:
    """Return the lines above the best recipe."""
    lines = [
        f"{candidate.name}, tuned: the best of {len(records)} trials on validation data with seed "
        f"{seed}, {monitor} {best.score:.4f}.",
        "The best of many flatters itself: compare it on test data, with other seeds.",
        f"From {candidate.source.name}; every other key as there, with its default filled in.",
    ]
    lines.append(f"The student without a method had {baseline:.4f}.")
    own = next(record for record in records if record.method == candidate.name)
    if own is not best and own.score is not None:
        lines.append(f"The recipe's own numbers had {own.score:.4f}.")
    for number in candidate.numbers:
        value = best.values[number.name]
        said = "as it was" if value == number.own else f"was {number.own:g}"
        lines.append(f"  {number.name} {value:g}, {said}")
    return "".join(f"# {line}\n" for line in lines)

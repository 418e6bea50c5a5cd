"""A trial is a run without its end, and reads no test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.runs import make_recipe
from tutelage import KD, Batch, UserError
from tutelage.data import Digits, Samples
from tutelage.engine import Recipe, fit
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.trial import check_has_validation, run_trial


class Sealed(Samples):
    """Samples that must not be read."""

    def __len__(self) -> int:
        return 100

    def batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
        raise AssertionError("test data is read")

    def subset(self, positions: object) -> Sealed:
        raise AssertionError("test data is read")


class SealedDigits(Digits):
    """Digits whose test part must not be read."""

    def splits(self, num_labels: int | None, seed: int) -> Mapping[str, Samples]:
        return {**super().splits(num_labels, seed), "test": Sealed()}


class NoValidation(Digits):
    """Digits without a validation part."""

    def splits(self, num_labels: int | None, seed: int) -> Mapping[str, Samples]:
        parts = dict(super().splits(num_labels, seed))
        del parts["validation"]
        return parts


def never(epoch: int, score: float) -> bool:
    return False


def sealed(teacher_run: Path, **train: object) -> Recipe:
    return replace(make_recipe(KD(), teacher_run, **train), data=SealedDigits())


def test_it_has_the_scores_of_a_run_and_reads_no_test_data(
    teacher_run: Path, tmp_path: Path
) -> None:
    reported: list[tuple[int, float]] = []

    def listen(epoch: int, score: float) -> bool:
        reported.append((epoch, score))
        return False

    result = run_trial(sealed(teacher_run, epochs=3), tmp_path / "trial", "text", listen)
    assert result is not None
    assert (result.epochs, result.is_stopped) == (3, False)
    metrics = fit(make_recipe(KD(), teacher_run, epochs=3), tmp_path / "run")
    assert metrics is not None
    assert result.score == metrics["validation"]["top1"]
    scores = [record["validation"]["top1"] for record in RunFolder(tmp_path / "run").records()]
    assert reported == [(epoch, max(scores[:epoch])) for epoch in (1, 2, 3)]
    assert not (tmp_path / "trial/metrics.json").exists()
    with pytest.raises(AssertionError, match="test data is read"):
        fit(sealed(teacher_run, epochs=1), tmp_path / "sealed")


def test_the_score_of_the_last_epoch_counts_where_that_is_shipped(
    teacher_run: Path, tmp_path: Path
) -> None:
    recipe = sealed(teacher_run, epochs=2, checkpoint="last")
    result = run_trial(recipe, tmp_path / "trial", "text", never)
    assert result is not None
    assert result.score == RunFolder(tmp_path / "trial").records()[-1]["validation"]["top1"]


def test_it_ends_where_it_is_told_to(teacher_run: Path, tmp_path: Path) -> None:
    recipe = sealed(teacher_run, epochs=6, eval_every=2)
    result = run_trial(recipe, tmp_path / "trial", "text", lambda epoch, score: epoch >= 4)
    assert result is not None
    assert (result.epochs, result.is_stopped) == (4, True)
    assert len(RunFolder(tmp_path / "trial").records()) == 4


def test_an_interrupted_trial_goes_on(teacher_run: Path, tmp_path: Path) -> None:
    whole = run_trial(sealed(teacher_run, epochs=4), tmp_path / "whole", "text", never)

    def break_off(epoch: int, score: float) -> bool:
        if epoch == 2:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run_trial(sealed(teacher_run, epochs=4), tmp_path / "trial", "text", break_off)
    reported: list[int] = []
    result = run_trial(
        sealed(teacher_run, epochs=4),
        tmp_path / "trial",
        "text",
        lambda epoch, score: bool(reported.append(epoch)),
    )
    assert result is not None
    assert whole is not None
    assert (result.score, result.epochs) == (whole.score, whole.epochs)
    assert reported == [1, 2, 3, 4]


def test_without_validation_data_there_is_nothing_to_choose_by(teacher_run: Path) -> None:
    check_has_validation(make_recipe(KD(), teacher_run))
    with pytest.raises(UserError, match="NoValidation has no validation part"):
        check_has_validation(replace(make_recipe(KD(), teacher_run), data=NoValidation()))


def test_several_processes_are_refused(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were launched, and trials run in one"):
        run_trial(make_recipe(KD(), teacher_run), tmp_path / "trial", "text", never)
    assert not (tmp_path / "trial").exists()

"""The draws, the halving and what is left of a search by a process that ended in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers.commands import part, write_recipe
from tutelage import UserError
from tutelage.recipes import parse_recipe
from tutelage.tune.candidates import Candidate
from tutelage.tune.outcome import best_trial, importance
from tutelage.tune.records import TrialRecord
from tutelage.tune.search import Drawn, Search, check_database, first_rung

EPOCHS = 3


@pytest.fixture
def candidates(tmp_path: Path) -> list[Candidate]:
    pairs = {"stage3": "stage3"}
    methods = {"kd": part("methods.KD"), "fitnet": part("methods.FitNet", layer_pairs=pairs)}
    found = []
    for name, method in methods.items():
        recipe = write_recipe(tmp_path / f"{name}.yaml", method=method, train={"epochs": EPOCHS})
        parsed = parse_recipe(recipe)
        found.append(Candidate.of(name, parsed, parsed))
    return found


def run(search: Search, drawn: Drawn) -> None:
    """Stand for a training whose score is best at a weight of 2."""
    score = 1 / (1 + abs(drawn.values["weight"] - 2))
    for epoch in range(1, EPOCHS + 1):
        if drawn.report(epoch, score * epoch / EPOCHS):
            search.finish(drawn, score, 1.0, is_stopped=True)
            return
    search.finish(drawn, score, 1.0, is_stopped=False)


def run_all(search: Search, wanted: int) -> list[TrialRecord]:
    while (drawn := search.next(wanted)) is not None:
        run(search, drawn)
    return search.records()


def drawn_values(records: Sequence[TrialRecord]) -> list[tuple[str, dict[str, float]]]:
    return [(record.method, dict(record.values)) for record in records]


def test_recipes_take_turns_and_begin_with_their_own_numbers(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    kd, fitnet = candidates
    records = run_all(Search(tmp_path / "tune.db", candidates, seed=0), 5)
    assert [record.method for record in records] == ["kd", "fitnet"] * 2 + ["kd"]
    assert drawn_values(records[:2]) == [("kd", kd.own()), ("fitnet", fitnet.own())]
    for record in records:
        low, high = next((n.low, n.high) for n in kd.numbers if n.name == "weight")
        assert record.method == "fitnet" or low <= record.values["weight"] <= high
    assert len({record.values["weight"] for record in records}) == 5


def test_halving_ends_trials_and_never_the_first(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    assert first_rung(candidates[0]) == 1
    search = Search(tmp_path / "tune.db", candidates[:1], seed=0)
    records = run_all(search, 9)
    stopped = [record for record in records if record.state == "stopped"]
    done = [record for record in records if record.state == "done"]
    assert records[0].state == "done"
    assert {record.epochs for record in stopped} == {1}
    assert {record.epochs for record in done} == {EPOCHS}
    assert len(done) <= 5
    assert best_trial(records) is max(done, key=lambda record: record.score or 0.0)


def test_a_search_that_was_left_goes_on_as_if_it_had_not_been(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    whole = run_all(Search(tmp_path / "whole.db", candidates, seed=3), 5)
    for number in range(5):  # each process ends in its second trial, after one epoch of it
        search = Search(tmp_path / "left.db", candidates, seed=3)
        drawn = search.next(5)
        assert drawn is not None
        assert drawn.position == number
        assert drawn.reported == ({1} if number else frozenset())
        run(search, drawn)
        left = search.next(5)
        if left is not None:
            assert not left.report(1, 0.9)
            (running,) = (record for record in search.records() if record.state == "running")
            assert (running.position, running.epochs) == (number + 1, 1)
    records = search.records()
    assert drawn_values(records) == drawn_values(whole)
    assert search.next(5) is None


def test_a_trial_that_failed_counts_and_says_why(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    search = Search(tmp_path / "tune.db", candidates[:1], seed=0)
    drawn = search.next(2)
    assert drawn is not None
    search.fail(drawn, "the term 'kd' became nan")
    drawn = search.next(2)
    assert drawn is not None
    search.finish(drawn, float("nan"), 1.0, is_stopped=False)
    records = search.records()
    assert [record.state for record in records] == ["failed", "failed"]
    with pytest.raises(UserError, match=r"none of 2 trials .* since its score .* is NaN"):
        best_trial(records)


def test_the_number_that_decides_matters_most(candidates: list[Candidate]) -> None:
    numbers = candidates[0].numbers  # the temperature and the weight of KD
    records = [
        TrialRecord(
            position=number,
            method="kd",
            number=number,
            values={"temperature": 1.0 + 7 * number % 5, "weight": 0.1 * (1 + number)},
            state="stopped" if number % 2 else "done",
            curve=((1, 0.1 * number), *(((2, 0.5),) if number % 2 == 0 else ())),
            seconds=1.0,
            error=None,
        )
        for number in range(10)
    ]
    assert importance(numbers, records[:7], 1) is None
    assert importance(numbers[:1], records, 1) is None
    found = importance(numbers, records, 1)
    assert found is not None
    assert (found["epoch"], found["trials"]) == (1, 10)
    assert found["shares"]["weight"] > 0.8
    assert sum(found["shares"].values()) == pytest.approx(1.0)


def test_a_file_of_others_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text(
        "no database, and longer than a header of SQLite, which has one hundred bytes" * 2
    )
    with pytest.raises(UserError, match=r"text\.db is not the file of a search \(file is not a"):
        check_database(text)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as file:
        file.execute("create table customers (name text)")
        file.commit()
    before = other.read_bytes()
    with pytest.raises(UserError, match="it holds other tables; choose another --out"):
        check_database(other)
    with closing(sqlite3.connect(other)) as file:
        file.execute("create table studies (study_name text)")
        file.execute("create table trials (number integer)")
        file.execute("insert into studies values ('mine')")
        file.commit()
    with pytest.raises(UserError, match="it holds the Optuna study 'mine'"):
        check_database(other)
    assert other.read_bytes() != before
    empty = tmp_path / "empty.db"
    empty.touch()
    check_database(empty)

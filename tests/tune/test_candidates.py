"""What of a recipe is searched for, and what its values do to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import network, part, write_recipe
from tutelage import KD, UserError
from tutelage.core import Around, Between
from tutelage.recipes import parse_recipe
from tutelage.tune.candidates import Candidate, check_comparable, check_has_numbers


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Tuned(KD):
    """A method of the user's own, with a search space of its own."""

    search_space = (Between("temperature", 2.0, 3.0),)


def candidate(method: dict[str, object], name: str = "own", **sections: object) -> Candidate:
    parsed = parse_recipe(write_recipe(f"{name}.yaml", method=method, **sections))
    return Candidate.of(name, parsed, parsed)


def test_a_range_must_hold_something() -> None:
    with pytest.raises(UserError, match=r"temperature goes from a positive value to a larger one"):
        Between("temperature", 3.0, 3.0)
    with pytest.raises(UserError, match=r"its factor is above 1, got 1\.0"):
        Around("weight", 1.0)


def test_the_numbers_of_a_method_are_around_the_values_of_the_recipe() -> None:
    numbers = candidate(part("methods.KD", temperature=20.0, weight=2.0)).numbers
    assert [(n.name, n.low, n.own, n.high) for n in numbers] == [
        ("temperature", 1.0, 20.0, 20.0),
        ("weight", 0.2, 2.0, 20.0),
    ]


def test_a_method_of_the_users_own_brings_its_own() -> None:
    (number,) = candidate(part(f"{__name__}.Tuned")).numbers
    assert (number.name, number.low, number.high) == ("temperature", 2.0, 4.0)


def test_what_is_off_is_not_searched_for() -> None:
    pairs = {"stage3": "stage3"}
    rcka = part("methods.RCKA", layer_pairs=pairs, intra_weight=None, feature_weight=0.0)
    assert [number.name for number in candidate(rcka).numbers] == ["inter_weight"]


def test_a_combined_method_has_the_numbers_of_all_and_they_reach_them() -> None:
    methods = [
        part("methods.KD", weight=1.0),
        part("methods.FitNet", layer_pairs={"stage3": "stage3"}),
        part("methods.KD", weight=3.0),
    ]
    found = candidate(part("tutelage.CombinedMethod", methods=methods))
    names = ["KD.temperature", "KD.weight", "FitNet.weight", "KD.temperature#2", "KD.weight#2"]
    assert list(found.own()) == names
    values = {name: 2.0 + position for position, name in enumerate(names)}
    kd, fitnet, other = found.with_numbers(values).build().method
    assert (kd.temperature, kd.weight, fitnet.weight) == (2.0, 3.0, 4.0)
    assert (other.temperature, other.weight) == (5.0, 6.0)
    assert found.recipe.build().method.methods[0].weight == 1.0  # it stays as it is


def test_a_recipe_with_nothing_to_search_for_is_named() -> None:
    with pytest.raises(UserError, match=r"own\.yaml has nothing to tune: .*Baseline declares no"):
        check_has_numbers(candidate(part("methods.Baseline")))
    off = part("methods.FitNet", layer_pairs={"stage3": "stage3"}, weight=0.0)
    with pytest.raises(UserError, match=r"sets none of the numbers that its method declares"):
        check_has_numbers(candidate(off))


def test_recipes_are_compared_on_the_same_data_only() -> None:
    kd = candidate(part("methods.KD"))
    wider = candidate(part("methods.KD"), "wider", student=network(width=8))
    check_comparable([kd, wider])
    more = candidate(part("methods.KD"), "more", num_labels=200)
    with pytest.raises(UserError, match=r"more\.yaml has another num_labels than own\.yaml"):
        check_comparable([kd, more])


def test_the_method_of_the_page_has_a_search_space_of_its_own() -> None:
    page = (Path(__file__).parents[2] / "docs/tune.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "tune.md", "exec"), names)
    temperature, weight = names["MyKD"]().search_space
    assert (temperature.bounds(4.0), weight.bounds(1.0)) == ((1.0, 20.0), (0.01, 100.0))

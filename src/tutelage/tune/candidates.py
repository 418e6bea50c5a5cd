"""Recipes with numbers to choose: what a search draws from."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core import CombinedMethod, Method
from tutelage.errors import UserError
from tutelage.recipes._lookup import resolve
from tutelage.recipes.read import ParsedRecipe

Keys = tuple[str | int, ...]

DIGITS = 4  # of the numbers that are drawn
SHARED = ("data", "num_labels", "task", "seed")  # by all recipes of a search


@dataclass(frozen=True)
class Number:
    """A number of a recipe's method that is searched for.

    Attributes:
        name: of the argument, after the class and a point in a combined method.
        path: the keys that lead to it in the recipe's section `method`.
        own: the recipe's value.
        low: the lowest value that is tried.
        high: the highest one.
    """

    name: str
    path: Keys
    own: float
    low: float
    high: float

    def rounded(self, value: float) -> float:
        """Return a value with few digits; the recipe's own stays as it is.

        >>> number = Number("weight", ("init_args", "weight"), 0.123456, 0.01, 1.0)
        >>> number.rounded(0.1234560000001), number.rounded(0.3333333)
        (0.123456, 0.3333)
        """
        if math.isclose(value, self.own, rel_tol=1e-9):
            return self.own
        return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Candidate:
    """A recipe of a search.

    Attributes:
        name: of the recipe, such as `kd`.
        source: the recipe as it was given; the teacher may be named by its recipe.
        recipe: the same with the teacher's model and weights.
        numbers: what is searched for.
    """

    name: str
    source: ParsedRecipe
    recipe: ParsedRecipe
    numbers: tuple[Number, ...]

    @classmethod
    def of(cls, name: str, source: ParsedRecipe, recipe: ParsedRecipe) -> Candidate:
        """Return a recipe with the numbers that its method declares in `search_space`.

        Args:
            name: of the recipe.
            source: see the class.
            recipe: see the class.
        """
        return cls(name, source, recipe, tuple(_numbers(source.config.method)))

    def own(self) -> dict[str, float]:
        """Return the recipe's own numbers by name."""
        return {number.name: number.own for number in self.numbers}

    def with_numbers(self, values: Mapping[str, float]) -> ParsedRecipe:
        """Return the recipe, with the teacher's weights, and with these numbers."""
        return self.recipe.replace({"method": self._method(values)})

    def source_with_numbers(self, values: Mapping[str, float]) -> ParsedRecipe:
        """Return the recipe as it was given, with these numbers."""
        return self.source.replace({"method": self._method(values)})

    def _method(self, values: Mapping[str, float]) -> Any:
        method = copy.deepcopy(self.source.config.method)
        for number in self.numbers:
            target: Any = method
            for key in number.path[:-1]:
                target = target[key]
            target[number.path[-1]] = values[number.name]
        return method


def check_has_numbers(candidate: Candidate) -> None:
    """Raise unless there is something to search for.

    Raises:
        UserError: If the method declares no numbers, or the recipe sets none of them.
    """
    if candidate.numbers:
        return
    path = candidate.source.config.method.class_path
    method = resolve(path)
    if issubclass(method, CombinedMethod) or method.search_space:
        why = "sets none of the numbers that its method declares in search_space to a positive one"
    else:
        why = f"has nothing to tune: {path} declares no numbers in search_space"
    raise UserError(f"the recipe {candidate.source.name} {why}; search over other recipes")


def check_comparable(candidates: Sequence[Candidate]) -> None:
    """Raise unless all recipes have the same data, task and seed, so that scores compare.

    Raises:
        UserError: The message names the key that differs.
    """
    first = candidates[0]
    for candidate in candidates[1:]:
        for key in SHARED:
            if candidate.source.config[key] != first.source.config[key]:
                raise UserError(
                    f"{candidate.source.name} has another {key} than {first.source.name}, so that "
                    "their scores do not compare; tune them one by one"
                )


def _numbers(section: Any) -> Iterator[Number]:
    """Give the numbers in the section `method` of a recipe."""
    names: set[str] = set()
    for method, spec, path in single_sections(section):
        prefix = "" if path == () else f"{method.__name__}."
        arguments = spec.get("init_args") or {}
        for searched in method.search_space:
            own = arguments.get(searched.name)
            if isinstance(own, bool) or not isinstance(own, (int, float)) or own <= 0:
                continue
            name = _free(f"{prefix}{searched.name}", names)
            names.add(name)
            low, high = searched.bounds(float(own))
            yield Number(name, (*path, "init_args", searched.name), float(own), low, high)


def single_sections(section: Any, path: Keys = ()) -> Iterator[tuple[type[Method], Any, Keys]]:
    """Give each method in a recipe's section `method`, its own section, and the keys to it."""
    method = resolve(section.class_path)
    if issubclass(method, CombinedMethod):
        for index, inner in enumerate(section.init_args.methods):
            yield from single_sections(inner, (*path, "init_args", "methods", index))
    else:
        yield method, section, path


def _free(name: str, taken: set[str]) -> str:
    """Return the name, or with the first free number behind it: the same method twice."""
    count, candidate = 1, name
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    return candidate

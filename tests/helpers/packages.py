"""Packages that are hidden, as if they were not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest


class Hiding:
    """Finds what the usual finders find, but for some packages."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._finders = list(sys.meta_path)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in self._names:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self._finders)
        return next((spec for spec in specs if spec is not None), None)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Hide packages until the test ends; importing them fails as where they are not installed."""
    monkeypatch.setattr(sys, "meta_path", [Hiding(names)])
    for module in list(sys.modules):
        if module.partition(".")[0] in names:
            monkeypatch.delitem(sys.modules, module)

"""Recipes are read by commands too: the fixtures that run `tutelage` in an empty folder."""

from __future__ import annotations

from tests.cli.conftest import here, refuse, run

__all__ = ["here", "refuse", "run"]

"""A teacher's outputs, kept: where the images stay the same, the teacher need not look at them again."""

from __future__ import annotations

from tutelage.cache.memory import Remembered

__all__ = ["Remembered"]

"""Stored outputs of a teacher: samples that stay the same are shown to it only once."""

from __future__ import annotations

from tutelage.cache.memory import CachedTeacher

__all__ = ["CachedTeacher"]

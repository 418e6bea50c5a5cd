"""Outputs of teachers that are stored: in memory for one run, or as files for all of them."""

from __future__ import annotations

from tutelage.cache.disk import StoredTeacher
from tutelage.cache.encoder import CachedEncoder
from tutelage.cache.memory import CachedTeacher
from tutelage.cache.stored_rows import StoredRows

__all__ = ["CachedEncoder", "CachedTeacher", "StoredRows", "StoredTeacher"]

"""Checks of many files that are made once, until a file changes."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from contextlib import suppress

from tutelage.io import user_cache, write_json

VERSION = 1  # of the checks; a file that passed those of another version is checked again


def check_once(state: str, check: Callable[[], None]) -> None:
    """Run a check of files, or say again what it said when the files were as they are now.

    What was found lies in the user's cache folder. A check that raises is run again next time, and
    so is any check where that folder cannot be written.

    Args:
        state: of the files, such as a digest of their names, sizes and times.
        check: raises, or gives warnings.
    """
    key = hashlib.blake2b(f"{VERSION} {state}".encode(), digest_size=16).hexdigest()
    record = user_cache() / "checked" / f"{key}.json"
    try:
        messages = json.loads(record.read_text(encoding="utf-8"))["warnings"]
    except (OSError, ValueError, KeyError, TypeError):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            check()
        messages = [str(warning.message) for warning in found]
        with suppress(OSError):
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, {"warnings": messages})
    for message in messages:
        warnings.warn(str(message), stacklevel=3)

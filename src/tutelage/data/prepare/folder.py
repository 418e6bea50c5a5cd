"""A prepared folder is whole or not there."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

from tutelage.errors import UserError


def build(folder: Path, write: Callable[[Path], None]) -> Path:
    """Make a folder by `write`, which fills one of a temporary name, unless it is there already; return it."""
    if folder.exists():
        return folder
    temporary = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.replace(folder)
    return folder


def settings_key(settings: object) -> str:
    """Return eight characters that differ between settings.

    >>> settings_key((256, 0)) == settings_key((256, 0)), settings_key((256, 0)) == settings_key((256, 1))
    (True, False)
    """
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def package_folder(name: str, advice: str) -> Path:
    """Return where an installed package lies, without importing it.

    Raises:
        UserError: it is not installed; `advice` says how to get it.
    """
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise UserError(f"the package {name} is not installed, and the data lies in it; {advice}")
    return Path(found.origin).parent

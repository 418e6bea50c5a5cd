"""The one exception that a person's mistake raises: its message is a sentence that says how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend: wrong shape, unknown name, missing file.

    The message is one sentence that says what is wrong, where, and how to mend it. The command line prints it
    without a traceback and exits with code 2; library code sees a `ValueError`.
    """


class NonFiniteError(UserError):
    """A loss term became NaN or infinite; `term` is its name."""

    def __init__(self, term: str, message: str) -> None:
        super().__init__(message)
        self.term = term


def near_misses(wrong: str, known: Iterable[str], most: int = 3) -> str:
    """Return `"; did you mean [...]?"` with the names nearest to `wrong`, or the first few known ones.

    >>> near_misses("layer5", ["layer3", "layer4", "fc"])
    "; did you mean ['layer4', 'layer3']?"
    >>> near_misses("zzz", ["conv1", "fc"])
    "; known are ['conv1', 'fc']"
    """
    names = [name for name in known if name]
    close = difflib.get_close_matches(wrong, names, n=most, cutoff=0.5)
    if close:
        return f"; did you mean {close}?"
    shown = names[:8] + (["…"] if len(names) > 8 else [])
    return f"; known are {shown}"

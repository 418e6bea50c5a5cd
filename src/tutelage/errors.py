"""Raised for user errors. The message states the problem and how to fix it."""

from __future__ import annotations

import difflib
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

# Frames of these folders are not the user's own code.
LIBRARIES = (
    "site-packages",
    "dist-packages",
    sysconfig.get_paths()["stdlib"],
    str(Path(__file__).parent),
)

# Packages, as they are imported → the extra that brings them.
EXTRAS = {
    "bm25s": "retrieval",
    "datasets": "datasets",
    "faster_coco_eval": "detection",
    "huggingface_hub": "hub",
    "matplotlib": "demo",
    "nibabel": "demo",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "optuna": "tune",
    "pyarrow": "recommendation",
    "ray": "ray",
    "sentence_transformers": "retrieval",
    "timm": "timm",
    "tokenizers": "retrieval",
    "transformers": "huggingface",
}


class UserError(ValueError):
    """A mistake that the user can fix: a wrong shape, an unknown name, a missing file.

    The message is one sentence that says what is wrong, where, and how to fix it. The command line
    prints it without a traceback and exits with code 2; library code sees a `ValueError`.
    """


def user_error_behind(error: BaseException) -> UserError | None:
    """Return the user's mistake that an error was raised from, through any errors between them."""
    cause: BaseException | None = error.__cause__
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    return cause


class NonFiniteError(UserError):
    """A loss term became NaN or infinite; `term` is its name."""

    def __init__(self, term: str, message: str) -> None:
        super().__init__(message)
        self.term = term


class NotInstalledError(UserError):
    """A package of an extra is not installed.

    >>> print(NotInstalledError("vitpose", "transformers"))
    vitpose needs transformers, which is not installed; pip install 'tutelage[huggingface]'

    Args:
        what: needs it.
        package: as it is imported.
        extra: that brings it; None takes the usual one.
        instead: what else could be done, such as `, or save it as .csv`.
    """

    def __init__(
        self, what: str, package: str, extra: str | None = None, instead: str = ""
    ) -> None:
        extra = EXTRAS[package] if extra is None else extra
        name = package.replace("_", "-")
        super().__init__(
            f"{what} needs {name}, which is not installed; pip install 'tutelage[{extra}]'{instead}"
        )


def close_names(wrong: str, names: Iterable[str], maximum: int = 3) -> list[str]:
    """Return the names nearest to a wrong one; the one that differs in case only comes alone.

    >>> close_names("adamw", ["Adam", "AdamW"]), close_names("zzz", ["conv1"])
    (['AdamW'], [])
    """
    names = [name for name in names if name]
    same = [name for name in names if name.casefold() == wrong.casefold()]
    return same or difflib.get_close_matches(wrong, names, n=maximum, cutoff=0.5)


def near_misses(wrong: str, known: Iterable[str], maximum: int = 3) -> str:
    """Return `"; did you mean [...]?"` with the nearest names, or the first known ones.

    >>> near_misses("layer5", ["layer3", "layer4", "fc"])
    "; did you mean ['layer4', 'layer3']?"
    >>> near_misses("zzz", ["conv1", "fc"])
    "; known are ['conv1', 'fc']"
    """
    names = [name for name in known if name]
    close = close_names(wrong, names, maximum)
    if close:
        return f"; did you mean {close}?"
    shown = names[:8] + (["…"] if len(names) > 8 else [])
    return f"; known are {shown}"


def reason(error: BaseException) -> str:
    """Return an error on one line: its type, its message, and the place in the user's own code.

    >>> reason(ValueError("no\\n  such width"))
    'ValueError: no such width'
    """
    text = str(error).strip()
    if text.startswith("Caught ") and "Traceback" in text:
        # The DataLoader wraps the whole traceback of a worker into the message.
        return text.splitlines()[-1]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}{where}"


def _is_own(file: str) -> bool:
    return not any(part in file for part in LIBRARIES) and Path(file).is_file()

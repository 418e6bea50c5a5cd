"""May the class paths of a student that somebody else made be imported?

A class path is code: importing and calling it can do anything. Those of the libraries that build
networks are let through; for others somebody has to say that they were read.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.errors import UserError

TRUSTED = (
    "tutelage.data.",
    "tutelage.methods.",
    "tutelage.models.",
    "tutelage.tasks.",
    "timm.create_model",
    "timm.models.",
    "torch.nn.",
    "torchvision.models.",
    "torchvision.transforms.",
    "transformers.Auto",
)
REMOTE_CODE = "trust_remote_code"  # an argument by which transformers runs a repository's code
DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def check_trusted(sections: Any, source: str) -> None:
    """Refuse the sections of a student.json that name code of unknown origin.

    Args:
        sections: of the recipe.
        source: what to call it in a message.

    Raises:
        UserError: The message lists the class paths.
    """
    unknown = sorted({path for path in code_paths(sections) if not path.startswith(TRUSTED)})
    if unknown:
        raise UserError(
            f"{source} names code outside of the libraries that build networks: {unknown}, which "
            "would run; read it, and load it with tutelage.load(..., trust_code=True)"
        )


def code_paths(value: Any) -> Iterator[str]:
    """Give all strings in a recipe that may be class paths, in any notation.

    >>> list(code_paths({"model": {"class_path": "a.B", "init_args": {"layer": "os.system"}}}))
    ['a.B', 'os.system']
    >>> list(code_paths({"layer": "features.conv", "root": "photos/roses.v2"}))
    []
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key == REMOTE_CODE and entry:
                yield REMOTE_CODE
            elif key == "class_path":
                yield str(entry)
            else:
                yield from code_paths(entry)
    elif isinstance(value, str):
        if _is_code(value):
            yield value
    elif isinstance(value, Sequence):
        for entry in value:
            yield from code_paths(entry)


def _is_code(text: str) -> bool:
    """Return whether a text is a class path in short notation: its first part is a module."""
    if ".py:" in text:
        return True
    if not DOTTED.fullmatch(text):
        return False
    return importlib.util.find_spec(text.partition(".")[0]) is not None

"""Atomic file writes: write to a temporary file, then rename; and reading JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tutelage.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary file, which becomes `path` at the end of the block.

    After an error in the block there is neither a new file nor a temporary one.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are written as such."""
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: of the file.
        fix: what to do about a damaged file; it ends the error message.

    Raises:
        UserError: If the file is not JSON.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not whole ({error}); {fix}") from error
    return result


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors atomically; tied tensors are stored one by one."""
    separate = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with atomic(path) as temporary:
        save_file(separate, temporary)

"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tutelage.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Read a JSON object; `mend` ends the sentence with what to do about a file that was cut short."""
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not whole ({error}); {mend}") from error
    return result


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors atomically; tied tensors are stored each on its own."""
    temporary = path.with_name(path.name + ".tmp")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary)
    os.replace(temporary, path)

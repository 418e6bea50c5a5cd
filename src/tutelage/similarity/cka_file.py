"""A CKA accumulator on disk: one safetensors file with its description as JSON in the header; never pickle."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.similarity.cka_state import Counts, State

FORMAT = 1
KEY = "tutelage.cka"


def write(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Write a state and its settings under a temporary name, then rename."""
    from safetensors.torch import save_file

    about = {
        "format": FORMAT,
        "measure": "linear CKA, centred, debiased",
        **settings,
        "counts": vars(state.counts),
        "ids": state.counts.ids_hash(),
        "versions": {name: metadata.version(name) for name in ("tutelage", "torch")},
    }
    temporary = path.with_name(path.name + ".tmp")
    save_file(
        {name: value.contiguous() for name, value in state.tensors().items()}, temporary, {KEY: json.dumps(about)}
    )
    os.replace(temporary, path)


def describe(path: Path) -> dict[str, Any]:
    """Return what the file says of itself: layers, counts, versions, settings.

    Raises:
        UserError: the file is missing, incomplete or something else.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no saved CKA at {path}; give a file that CKAMatrix.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}); is the file complete?") from error
    if about is None:
        raise UserError(f"{path} holds no CKA accumulator; give a file that CKAMatrix.save wrote")
    read: dict[str, Any] = json.loads(about)
    if read["format"] != FORMAT:
        raise UserError(
            f"{path} has format {read['format']}, this version reads {FORMAT}; use the version that wrote it"
        )
    return read


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """Return a saved state and its settings."""
    from safetensors.torch import load_file

    about = describe(path)
    return State(**load_file(path), counts=Counts(**about["counts"])), about

"""A CKA accumulator on disk: one safetensors file with its description as JSON in the header."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tutelage.errors import UserError
from tutelage.similarity._cka_state import Counts, State

# safetensors is imported where it is needed: the rest of the package needs torch only.

FORMAT = 1
KEY = "tutelage.cka"


def write(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Write a state and its settings to a temporary file, then rename it."""
    from safetensors.torch import save_file

    description = {
        "format": FORMAT,
        "measure": "linear CKA, centered, debiased",
        **settings,
        "counts": asdict(state.counts),
        "ids": state.counts.ids_hash(),
        "versions": {name: metadata.version(name) for name in ("tutelage", "torch")},
    }
    tensors = {name: value.contiguous() for name, value in state.tensors().items()}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, {KEY: json.dumps(description)})
    os.replace(temporary, path)


def describe(path: Path) -> dict[str, Any]:
    """Return the description in a file: layers, counts, versions, settings.

    Raises:
        UserError: If the file is missing, incomplete or not a saved accumulator.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no saved CKA at {path}; give a file that CKAMatrix.save wrote")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read ({error}); is the file complete?") from error
    if header is None:
        raise UserError(f"{path} holds no CKA accumulator; give a file that CKAMatrix.save wrote")
    description: dict[str, Any] = json.loads(header)
    if description["format"] != FORMAT:
        raise UserError(
            f"{path} has format {description['format']}, this version reads {FORMAT}; use the "
            "version that wrote it"
        )
    return description


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """Return a saved state and its description."""
    from safetensors.torch import load_file

    description = describe(path)
    tensors = load_file(path)
    state = State(
        xy=tensors["xy"],
        xx=tensors["xx"],
        yy=tensors["yy"],
        null=tensors["null"],
        counts=Counts(**description["counts"]),
    )
    return state, description

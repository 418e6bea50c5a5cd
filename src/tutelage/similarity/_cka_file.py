"""A CKA accumulator on disk: one safetensors file with its description as JSON in the header."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import UserError
from tutelage.similarity._cka_state import Counts, State

# safetensors, and what needs it, is imported where it is used: the rest needs torch only.

FORMAT = 1
KEY = "tutelage.cka"


def write(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Write a state and its settings atomically."""
    from safetensors.torch import save_file

    from tutelage.io import atomic

    description = {
        "format": FORMAT,
        "measure": "linear CKA, centered, debiased",
        **settings,
        "counts": asdict(state.counts),
        "ids": state.counts.ids_hash(),
        "versions": {name: metadata.version(name) for name in ("tutelage", "torch")},
    }
    tensors = {name: value.contiguous() for name, value in state.tensors().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {KEY: json.dumps(description)})


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
    try:
        description: dict[str, Any] = json.loads(header)
        written_format = description["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path) from error
    if written_format != FORMAT:
        raise UserError(
            f"{path} has format {written_format}, this version reads {FORMAT}; use the version "
            "that wrote it"
        )
    return description


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """Return a saved state and its description.

    Raises:
        UserError: As `describe`, or if the tensors do not fit the description.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = describe(path)
    try:
        state = State(**load_file(path), counts=Counts(**description["counts"]))
        is_whole = _fits(state, description)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise _damaged(path) from error
    if not is_whole:
        raise _damaged(path)
    return state, description


def _fits(state: State, description: dict[str, Any]) -> bool:
    """Return whether names, counts and shapes are of one accumulator."""
    left = description["left"]
    right = left if description["right"] is None else description["right"]
    numbers = (description["permutations"], *asdict(state.counts).values())
    if not all(isinstance(names, list) for names in (left, right)):
        return False
    if not isinstance(description["seed"], int):
        return False
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        return False
    with torch.device("meta"):  # shapes alone, since a damaged number may be large
        empty = State.empty(len(left), len(right), description["permutations"]).tensors()
    return all(
        value.shape == empty[name].shape and value.dtype == empty[name].dtype
        for name, value in state.tensors().items()
    )


def _damaged(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged: it is not as CKAMatrix.save wrote it; get a whole copy, or "
        "accumulate again"
    )

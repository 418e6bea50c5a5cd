"""Exact resume: everything that the next step depends on, as safetensors and JSON, never pickle.

A checkpoint is a folder `checkpoints/<step>`, written under a temporary name, forced to the disk
and renamed, so what has the final name is whole. The last two are kept, each with the checksums of
its files: a disk or a copy can still damage what was whole, and then the older one is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tutelage.errors import UserError
from tutelage.io import sync_folder, temporary_folder, write_json, write_tensors

TENSORS = "tensors.safetensors"
STATE = "state.json"
CHECKSUMS = "checksums.json"
KEPT = 2
CHUNK_BYTES = 2**20


class DamagedCheckpointError(UserError):
    """A checkpoint is not what was written."""


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write the checkpoint of a step; once it is whole, all but the last two are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{step:09d}"
    temporary = temporary_folder(final)
    try:
        temporary.chmod(folder.stat().st_mode & 0o777)
        write_tensors(temporary / TENSORS, tensors)
        write_json(temporary / STATE, state)
        checksums = {name: _checksum(temporary / name) for name in (TENSORS, STATE)}
        write_json(temporary / CHECKSUMS, checksums)
        _replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)
    for older in checkpoints(folder)[KEPT:]:
        shutil.rmtree(older)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and state of a checkpoint.

    Raises:
        DamagedCheckpointError: If a file is missing or not as it was written.
    """
    try:
        checksums = json.loads((path / CHECKSUMS).read_text(encoding="utf-8"))
        for name in (TENSORS, STATE):
            if _checksum(path / name) != checksums[name]:
                raise DamagedCheckpointError(f"{path / name} is not as it was written")
        state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        return load_file(path / TENSORS), state
    except DamagedCheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path} is not whole ({error})") from error


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that can be loaded, and what is wrong with newer ones.

    Returns:
        None for the checkpoint if there is none at all.

    Raises:
        UserError: If there are checkpoints, and all are damaged.
    """
    problems: list[str] = []
    for path in checkpoints(folder):
        try:
            load_checkpoint(path)
        except DamagedCheckpointError as error:
            problems.append(str(error))
        else:
            return path, problems
    if problems:
        raise UserError(
            f"{folder} cannot be read ({'; '.join(problems)}); remove it to start again"
        )
    return None, []


def remove_newer(path: Path) -> None:
    """Remove the checkpoints of later steps than this one, because they are damaged."""
    for newer in checkpoints(path.parent):
        if int(newer.name) > int(path.name):
            shutil.rmtree(newer)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest first."""
    if not folder.is_dir():
        return []
    # Not every digit of Unicode is one of a step.
    names = [path for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    return sorted(names, key=lambda path: int(path.name), reverse=True)


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    return [name for name, value in tensors.items() if not bool(value.isfinite().all())]


def _replace_folder(temporary: Path, final: Path) -> None:
    """Give a folder its final name; one that has the name is moved away and removed."""
    if final.exists():  # of the same step, from before the run was resumed
        old = temporary_folder(final)
        os.replace(final, old / final.name)
        temporary.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(final)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def pack_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors and the rest."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            target = tensors if isinstance(value, Tensor) else rest
            target[f"{index}/{slot}"] = value
    groups = [
        {key: v.item() if isinstance(v, Tensor) else v for key, v in group.items()}
        for group in state["param_groups"]
    ]
    return tensors, {"slots": rest, "groups": groups}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]
) -> None:
    """Restore a state that `pack_optimizer` split."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["slots"]}.items():
        index, _, slot = key.partition("/")
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})


def pack_rng() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of the random generators of Python, NumPy and torch."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return tensors, {
        "python": [version, list(internal), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def unpack_rng(tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    """Restore the random generators."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    version, internal, gauss = rest["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = rest["numpy"]
    numpy_keys = np.array(keys, dtype=np.uint32)
    np.random.set_state((kind, numpy_keys, position, has_gauss, cached))


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with a prefix before every name."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names have the prefix, without it."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }

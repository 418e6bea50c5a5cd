"""Exact resume: everything that the next step depends on, as safetensors and JSON, never pickle.

A checkpoint is a folder `checkpoints/<step>`, written under a temporary name and renamed, so what
has the final name is whole.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from tutelage.io import write_json, write_tensors


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write the checkpoint of a step; earlier ones are removed once it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "unfinished"
    final = folder / f"{step:09d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write_tensors(temporary / "tensors.safetensors", tensors)
    write_json(temporary / "state.json", state)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for older in _finished(folder):
        if older != final:
            shutil.rmtree(older)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and state of the newest whole checkpoint, or None."""
    finished = _finished(folder)
    if not finished:
        return None
    newest = max(finished)
    state = json.loads((newest / "state.json").read_text())
    return load_file(newest / "tensors.safetensors"), state


def _finished(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    return [path for path in folder.glob("*") if path.name.isdigit()]


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

"""Load a network's weights strictly: every key must fit, and a message names those that do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tutelage.errors import UserError

STUDENT = "student.safetensors"
UNREADABLE = (SafetensorError, OSError, RuntimeError, EOFError, ValueError)


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Load weights into `network`, in place.

    Args:
        network: the module to fill.
        source: a run folder (its shipped student), a `.safetensors` file, or a torch checkpoint
            with a state dict (alone or under `state_dict` or `model`; the prefixes `module.` and
            `_orig_mod.` are removed). Pickled objects are refused.

    Raises:
        UserError: If the file is missing, unreadable or truncated, or a key or shape does not fit.
    """
    path = weights_file(source)
    state = _read(path)
    own = network.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise UserError(
            f"{path} does not fit {type(network).__name__}: missing {_listed(missing)}, "
            f"unexpected {_listed(unexpected)}; give the network that the weights were made with"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise UserError(
                f"{path} holds {name!r} of shape {tuple(value.shape)}, but "
                f"{type(network).__name__} needs {tuple(own[name].shape)}; "
                "check the network's arguments (classes, width, channels)"
            )
    network.load_state_dict(state)


def weights_file(source: str | Path) -> Path:
    """Return the weights file that `source` means; a run folder means its shipped student.

    Raises:
        UserError: If it does not exist.
    """
    path = Path(source)
    if path.is_dir():
        path = path / STUDENT
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}; give a run folder that is finished, or a weights file"
        )
    return path


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read as weights ({_first_line(error)}); is the file complete?"
        ) from error
    except Exception as error:  # torch raises its own unpickling error for anything but tensors
        if not path.read_bytes()[:4].startswith((b"PK\x03\x04", b"\x80")):
            raise UserError(
                f"{path} is no weights file; give a run folder, a .safetensors or a .pt file"
            ) from error
        raise UserError(
            f"{path} holds more than tensors and is refused; save its state_dict() as safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not _is_state_dict(loaded):
        raise UserError(f"{path} holds no state dict of tensors; save the network's state_dict()")
    return {
        name.removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in loaded.items()
    }


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    if len(names) <= 4:
        return str(names)
    return f"{str(names[:4])[:-1]}, … {len(names)} in all]"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__

"""Load a network's weights strictly: every key must fit, and a message names those that do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tutelage.errors import UserError

STUDENT = "student.safetensors"
WRAPPERS = ("module.", "_orig_mod.")
UNREADABLE = (SafetensorError, OSError, RuntimeError, EOFError, ValueError)


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Load weights into `network`, in place; if they do not fit, it stays as it was.

    Whatever torch loads strictly is loaded. Beyond that, the prefixes `module.` and `_orig_mod.` of
    data parallelism and `torch.compile` are removed where the network does not have them itself,
    and weights that the network ties may be stored once.

    Args:
        network: the module to fill.
        source: a run folder (its shipped student), a `.safetensors` file, or a torch checkpoint
            with a state dict (alone or under `state_dict` or `model`); `~` is the home folder.
            Pickled objects are refused.

    Raises:
        UserError: If the file is missing, unreadable or truncated, or a key or shape does not fit.
    """
    path = weights_file(source)
    own = network.state_dict()
    state = _best_fit(_read(path), own)
    before = {name: value.clone() for name, value in own.items() if not is_lazy(value)}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a shape
        network.load_state_dict(before, strict=False)
        raise _shape_error(path, network, state, own) from error
    if missing or unexpected:
        network.load_state_dict(before, strict=False)
        missing = [name for name in own if name not in state]
        raise UserError(
            f"{path} does not fit {type(network).__name__}: missing {_listed(missing)}, "
            f"unexpected {_listed(unexpected)}; give the network that the weights were made with"
        )


def weights_file(source: str | Path) -> Path:
    """Return the weights file that `source` means; a run folder means its shipped student.

    Raises:
        UserError: If it does not exist.
    """
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:
        raise UserError(f"the home folder of {str(source)!r} is not known; write it out") from error
    if path.is_dir():
        path = path / STUDENT
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}; give a run folder that is finished, or a weights file"
        )
    return path


def _best_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the prefixes of wrappers, and with tied weights under all names.

    Of the ways to remove prefixes, it is the first with the fewest names that do not fit: a network
    may have a child that is called `module`.

    Args:
        state: what the file holds.
        own: the network's.
    """
    # In a compiled part, the wrapper's name stands in the middle.
    candidates = [dict(state), {name.replace("._orig_mod.", "."): state[name] for name in state}]
    for candidate in list(candidates):
        bare = candidate
        while any(name.startswith(WRAPPERS) for name in bare):
            bare = {_without_wrapper(name): value for name, value in bare.items()}
            candidates.append(bare)
    # Names that became equal would hide each other.
    complete = [candidate for candidate in candidates if len(candidate) == len(state)]
    filled = [_with_tied(candidate, own) for candidate in complete]
    return min(filled, key=lambda candidate: len(candidate.keys() ^ own.keys()))


def _without_wrapper(name: str) -> str:
    for prefix in WRAPPERS:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _with_tied(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which weights that the network ties are there under all their names.

    `safetensors.torch.save_model` stores them once.
    """
    present = {_memory(own[name]): name for name in own if name in state}
    tied = dict(state)
    for name, value in own.items():
        memory = _memory(value)
        if name not in state and memory is not None and memory in present:
            tied[name] = state[present[memory]]
    return tied


def _memory(value: Tensor) -> tuple[Any, ...] | None:
    """Return what is the same for a tensor under two names only."""
    if is_lazy(value) or value.numel() == 0 or value.is_meta:
        return None
    return value.data_ptr(), value.shape, value.stride(), value.dtype


def _shape_error(
    path: Path, network: nn.Module, state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> UserError:
    """Return the error for a state dict that does not fit."""
    for name, value in state.items():
        if name in own and not is_lazy(own[name]) and value.shape != own[name].shape:
            return UserError(
                f"{path} holds {name!r} of shape {tuple(value.shape)}, but "
                f"{type(network).__name__} needs {tuple(own[name].shape)}; "
                "check the network's arguments (classes, width, channels)"
            )
    return UserError(
        f"{path} does not fit {type(network).__name__}; give the network that the weights were "
        "made with"
    )


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
    loaded = _unpacked(loaded)
    if not _is_state_dict(loaded):
        raise UserError(f"{path} holds no state dict of tensors; save the network's state_dict()")
    return dict(loaded)


def _unpacked(loaded: Any) -> Any:
    """Return the mapping below `state_dict` and `model`, in either order."""
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            return _unpacked(loaded[key])
    return loaded


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

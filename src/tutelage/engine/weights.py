"""Load a network's weights strictly: every key must fit, and a message names those that do not."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tutelage.engine.hub import hub_file, is_hub
from tutelage.errors import UserError
from tutelage.io import expanded

STUDENT = "student.safetensors"
WRAPPERS = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
HOLDERS = ("model.", "net.", "network.")  # a network in a module of a training framework
INNER_WRAPPERS = WRAPPERS[1:]  # `module` in the middle may be a child of that name
SECTIONS = ("state_dict", "model", "model_state_dict", "net")  # of a checkpoint
EXTRA = "_extra_state"  # end of the names of what is no tensor in a state dict of torch's
AVERAGED = "ema_model."
NUM_AVERAGED = "n_averaged"  # what `torch.optim.swa_utils.AveragedModel` adds
UNREADABLE = (SafetensorError, OSError, RuntimeError, EOFError, ValueError)


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Load weights into `network`, in place; if they do not fit, it stays as it was.

    Whatever torch loads strictly is loaded, except integers as the weights of a float network.
    Beyond that, the names that data parallelism, `torch.compile`, checkpointing and weight
    averaging put around a network are removed where the network does not have them itself, as is
    `model.` before all names (Lightning), and weights that it ties may be stored once.

    Args:
        network: the module to fill.
        source: a run folder (its shipped student), a `.safetensors` file, or a torch checkpoint
            with a state dict (alone or under `state_dict`, `model`, `model_state_dict` or `net`,
            the first of these, which a warning says where the file has another network's, too);
            `~` is the home folder, `hf://owner/name` or `hf://owner/name/file` is on the Hugging
            Face Hub. Pickled objects are refused.

    Raises:
        UserError: If the file is missing, unreadable or truncated, or if a key, a shape or a type
            does not fit.
    """
    path = weights_file(source)
    own = network.state_dict()
    before = {}
    for name, value in own.items():
        if not is_lazy(value):
            before[name] = value.clone() if isinstance(value, Tensor) else value
    parameters = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    problems: list[UserError] = []
    for state in _by_fit(_read(path), own):
        _refuse_integers(path, state, own, parameters)
        try:
            missing, unexpected = network.load_state_dict(state, strict=False)
        except RuntimeError as error:  # a shape
            problem = _shape_error(path, network, state, own)
            problem.__cause__ = error
        else:
            if not missing and not unexpected:
                return
            missing = [name for name in own if name not in state]
            problem = UserError(
                f"{path} does not fit {type(network).__name__}: missing {_listed(missing)}, "
                f"unexpected {_listed(unexpected)}; give the network that the weights were made "
                "with"
            )
        problems.append(problem)
        network.load_state_dict(before, strict=False)
    raise problems[0]


def weights_file(source: str | Path) -> Path:
    """Return the weights file that `source` means; a run folder means its shipped student.

    What begins with `hf://` is downloaded, see `engine.hub`.

    Raises:
        UserError: If it does not exist, or cannot be downloaded.
    """
    if is_hub(source):
        return hub_file(str(source))
    path = expanded(source)
    if os.path.isdir(path):
        path = path / STUDENT
    if not os.path.isfile(path):  # `Path.is_file` raises for a name that is too long
        raise UserError(
            f"there are no weights at {str(path)[:200]}; give a run folder that is finished, or a "
            "weights file"
        )
    return path


def _by_fit(state: Mapping[str, Any], own: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return a state dict without the names of wrappers, and with tied weights under all names.

    There are several ways to remove these names, since a network may have a child that is called
    `module`. The first one has the fewest names that do not fit; but hooks of the network may
    rename what it loads.

    Args:
        state: what the file holds.
        own: the network's.
    """
    # A module that holds the average beside other things; what is around its name goes next.
    is_around = bool(state) and all(name.startswith(AVERAGED) for name in state)
    if is_around and not any(name.startswith(AVERAGED) for name in own):
        state = {name.removeprefix(AVERAGED): value for name, value in state.items()}
    candidates = [dict(state)]
    if NUM_AVERAGED in state and NUM_AVERAGED not in own:
        candidates = [{name: state[name] for name in state if name != NUM_AVERAGED}]
    # Around a part of the network, the wrapper's name stands in the middle.
    inner = {_without_inner_wrappers(name): value for name, value in candidates[0].items()}
    if inner.keys() != candidates[0].keys():
        candidates.append(inner)
    count = len(candidates[0])
    for candidate in list(candidates):
        bare = candidate
        while any(name.startswith(WRAPPERS) for name in bare):
            bare = {_without_wrapper(name): value for name, value in bare.items()}
            candidates.append(bare)
    for candidate in list(candidates):
        for holder in HOLDERS:
            if candidate and all(name.startswith(holder) for name in candidate):
                candidates.append(
                    {name.removeprefix(holder): value for name, value in candidate.items()}
                )
    # Names that became equal would hide each other.
    complete = [candidate for candidate in candidates if len(candidate) == count]
    filled = [_with_tied(candidate, own) for candidate in complete]
    return sorted(filled, key=lambda candidate: len(candidate.keys() ^ own.keys()))


def _without_inner_wrappers(name: str) -> str:
    for wrapper in INNER_WRAPPERS:
        name = name.replace(f".{wrapper}", ".")
    return name


def _without_wrapper(name: str) -> str:
    for prefix in WRAPPERS:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _with_tied(state: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
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


def _memory(value: Any) -> tuple[Any, ...] | None:
    """Return what is the same for a tensor under two names only."""
    if not isinstance(value, Tensor):
        return None
    if is_lazy(value) or value.numel() == 0 or value.is_meta:
        return None
    return value.data_ptr(), value.shape, value.stride(), value.dtype


def _refuse_integers(
    path: Path, state: Mapping[str, Any], own: Mapping[str, Any], parameters: Sequence[str]
) -> None:
    """Raise if a parameter of floats would be filled with integers, as of a quantized network."""
    for name in parameters:
        value = state.get(name)
        if not isinstance(value, Tensor) or value.is_floating_point() or name not in own:
            continue
        if own[name].is_floating_point():
            raise UserError(
                f"{path} holds {name!r} as {value.dtype}, but the network's is {own[name].dtype}; "
                "save the weights as floats (of a quantized network, those before quantization)"
            )


def _shape_error(
    path: Path, network: nn.Module, state: Mapping[str, Any], own: Mapping[str, Any]
) -> UserError:
    """Return the error for a state dict that does not fit."""
    for name, value in state.items():
        if name not in own or not isinstance(own[name], Tensor) or is_lazy(own[name]):
            continue
        if isinstance(value, Tensor) and value.shape != own[name].shape:
            return UserError(
                f"{path} holds {name!r} of shape {tuple(value.shape)}, but "
                f"{type(network).__name__} needs {tuple(own[name].shape)}; "
                "check the network's arguments (classes, width, channels)"
            )
    return UserError(
        f"{path} does not fit {type(network).__name__}; give the network that the weights were "
        "made with"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix.lower() == ".safetensors" or _has_header(path):
            return dict(load_file(path))
        # timm and the references of torchvision keep their options beside the weights. Making a
        # `Namespace` runs no code: it has the attributes that the file names, nothing else.
        torch.serialization.add_safe_globals([argparse.Namespace])
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"{path} holds a TorchScript network, whose code is not run; save the state_dict() "
                "of torch.jit.load(path)"
            ) from error
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
    loaded = _unpacked(loaded, path)
    if not _is_state_dict(loaded):
        raise UserError(f"{path} holds no state dict of tensors; save the network's state_dict()")
    return dict(loaded)


def _unpacked(loaded: Any, path: Path) -> Any:
    """Return the mapping below `state_dict`, `model` and the like, in any order."""
    for key in SECTIONS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            inner = _unpacked(loaded[key], path)
            # Beside it may be the average of the same weights, or those of another network.
            others = [
                other
                for other, value in loaded.items()
                if other != key and _is_state_dict(value) and len(value) >= len(inner) / 2
            ]
            if others and _is_state_dict(inner):
                warnings.warn(
                    f"{path} holds several networks; {key!r} is read, and {others} is not; save "
                    "the state dict that is meant alone",
                    stacklevel=2,
                )
            return inner
    return loaded


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(
        isinstance(name, str) and (isinstance(entry, Tensor) or name.endswith(EXTRA))
        for name, entry in value.items()
    )


def _has_header(path: Path) -> bool:
    """Return whether a file of any name begins as safetensors do: a length, and a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _listed(names: list[str]) -> str:
    if not names:
        return "nothing"
    if len(names) <= 4:
        return str(names)
    return f"{str(names[:4])[:-1]}, … {len(names)} in all]"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__

"""Checks of the sections of a recipe that is built in Python, where no parser checks the types."""

from __future__ import annotations

import collections.abc
import os
import types
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from torch import nn

from tutelage.core._arguments import shown_kind
from tutelage.errors import UserError

# How a class is written where it is needed.
EXAMPLES = {
    "Data": "tutelage.data.Digits()",
    "Method": "tutelage.KD()",
    "Module": "torch.nn.Linear(8, 3)",
    "StudentConfig": "StudentConfig(network)",
    "Task": "tutelage.Classification(num_classes=10)",
    "TeacherConfig": "TeacherConfig(network)",
    "TrainConfig": "TrainConfig(epochs=3)",
}


class HasSchedule(Protocol):
    """The keys of `TrainConfig` that say how the learning rate goes."""

    epochs: int
    schedule: Literal["cosine", "step", "constant"]
    milestones: Sequence[int]
    warmup_epochs: float


class HasCache(Protocol):
    """The keys of `TeacherConfig` that say how its outputs are stored."""

    cache: Literal["none", "memory", "disk"]
    cache_views: int | None
    cache_dtype: Literal["float32", "float16"]
    cache_top_k: int | None


def check_types(section: str, config: Any) -> None:
    """Raise unless every field of a section has a value of its type.

    Args:
        section: name of the section in a recipe, for the message; "" is the recipe itself.
        config: one of the dataclasses of a recipe.

    Raises:
        UserError: The message names the first such field.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        key = f"{section}.{name}" if section else name
        if not _fits(value, kind):
            raise UserError(f"{key} must be {_words(kind)}, got {_shown(value)}{_fix(value, kind)}")


def check_schedule(train: HasSchedule) -> None:
    """Raise for keys of the learning rate that would have no effect.

    Raises:
        UserError: If there are milestones without the schedule that reads them, or if the warm-up
            is longer than the run, which would never reach the learning rate.
    """
    if len(train.milestones) and train.schedule != "step":
        raise UserError(
            f"train.milestones are of the schedule 'step', but train.schedule is "
            f"{train.schedule!r}; set it to 'step', or milestones to []"
        )
    if train.warmup_epochs > train.epochs:
        raise UserError(
            f"train.warmup_epochs is {train.warmup_epochs:g}, but the run has {train.epochs} "
            "epochs, so that the learning rate would never be reached; set it to 0 for a short run"
        )


def check_cache(teacher: HasCache) -> None:
    """Raise for keys of a cache that would have no effect, or are no numbers of anything.

    Raises:
        UserError: If so.
    """
    if teacher.cache_top_k is not None and teacher.cache_top_k < 1:
        raise UserError(f"teacher.cache_top_k must be at least 1, got {teacher.cache_top_k}")
    if teacher.cache_views is not None and teacher.cache_views < 2:
        raise UserError(
            f"teacher.cache_views must be at least 2, got {teacher.cache_views}; leave it out for "
            "data without augmentation"
        )
    if teacher.cache == "none" and teacher.cache_views is not None:
        raise UserError(
            "teacher.cache_views is of a cache, but teacher.cache is 'none'; set it to 'memory' or "
            "'disk', or leave cache_views out"
        )
    is_smaller = teacher.cache_dtype != "float32" or teacher.cache_top_k is not None
    if teacher.cache != "disk" and is_smaller:
        raise UserError(
            "teacher.cache_dtype and cache_top_k are of files, but teacher.cache is "
            f"{teacher.cache!r}; set it to 'disk', or leave them out"
        )


def check_same_caches(teachers: Mapping[str, HasCache]) -> None:
    """Raise for teachers whose outputs are to be stored otherwise than those of another.

    Raises:
        UserError: If so.
    """
    cached = {name: teacher for name, teacher in teachers.items() if teacher.cache != "none"}
    names = ("cache", "cache_dir", "cache_views", "cache_dtype", "cache_top_k")
    for key in names:
        values = {name: getattr(teacher, key) for name, teacher in cached.items()}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"teachers.{name}.{key} {value}" for name, value in values.items())
            raise UserError(
                f"the outputs of all teachers are stored together, so give one value: {shown}"
            )


def check_pieces(batch_size: int, accumulate: int) -> None:
    """Raise for more pieces of a batch than can have two samples each.

    Raises:
        UserError: If so.
    """
    if accumulate > 1 and batch_size < 2 * accumulate:
        raise UserError(
            f"train.accumulate {accumulate} cuts a batch of {batch_size} samples into pieces of "
            f"fewer than 2; take at most {max(1, batch_size // 2)}, or a larger train.batch_size"
        )


def _fits(value: object, kind: Any) -> bool:
    """Return whether a value is of a type, which may be a union, a `Literal` or a sequence."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, member) for member in get_args(kind))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if origin is collections.abc.Callable:
        return callable(value) and not isinstance(value, nn.Module)
    if origin is collections.abc.Sequence:
        (entry,) = get_args(kind)
        is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        return is_list and all(_fits(one, entry) for one in value)  # type: ignore[attr-defined]
    if origin is collections.abc.Mapping:
        names, entry = get_args(kind)
        return isinstance(value, Mapping) and all(
            _fits(name, names) and _fits(one, entry) for name, one in value.items()
        )
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    if kind is float:
        return isinstance(value, Real)
    if kind is int:
        return isinstance(value, Integral)
    return kind is Any or isinstance(value, kind)


def _words(kind: Any) -> str:
    """Return a type in words.

    >>> _words(int | None), _words(Sequence[str]), _words(Literal["no", "bf16"])
    ('a whole number or None', 'a list of texts', "one of ['no', 'bf16']")
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(member) for member in get_args(kind))
    if origin is Literal:
        return f"one of {list(get_args(kind))}"
    if origin is collections.abc.Callable:
        return "a function of the parameters, such as functools.partial(torch.optim.SGD, lr=0.1)"
    plural = {int: "whole numbers", float: "numbers", str: "texts"}
    if origin is collections.abc.Sequence:
        (entry,) = get_args(kind)
        return f"a list of {plural.get(entry, entry)}"
    if origin is collections.abc.Mapping:
        entry = get_args(kind)[1].__name__
        return f"a mapping of names to {entry}s, such as {{'large': {EXAMPLES.get(entry, entry)}}}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
    words[type(None)] = "None"
    if kind in words:
        return words[kind]
    return f"a {kind.__name__}, such as {EXAMPLES.get(kind.__name__, kind.__name__)}"


def _shown(value: object) -> str:
    is_container = isinstance(value, (list, tuple, dict)) and len(repr(value)) < 80
    is_plain = is_container and not any(isinstance(one, nn.Module) for one in value)  # type: ignore[attr-defined]
    return repr(value) if is_plain else shown_kind(value)


def _fix(value: object, kind: Any) -> str:
    if get_origin(kind) is collections.abc.Sequence and isinstance(value, str):
        return f"; write [{value[:40]!r}]"
    return ""

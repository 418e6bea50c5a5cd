"""Mistakes in the structure of a recipe, found before the parser, which would say less clearly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.core._arguments import check_teacher_name
from tutelage.errors import UserError, near_misses
from tutelage.recipes._names import example_of
from tutelage.recipes._text import shorten

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
RECIPE_SUFFIXES = (".yaml", ".yml")


def check_structure(content: Mapping[str, Any]) -> None:
    """Raise for sections that are no mappings, and for classes that are written otherwise.

    >>> check_structure({"student": {"class_path": "torchvision.models.resnet18"}})
    Traceback (most recent call last):
    tutelage.errors.UserError: student has no key 'class_path'; the network stands under model: \
student: {model: {class_path: …}}

    Args:
        content: the recipe as it was read, with its settings.

    Raises:
        UserError: The message names the key.
    """
    for name in content:
        if not isinstance(name, str):
            raise UserError(f"the keys of a recipe are text, got {name!r}")
    for key in ("student", "train"):
        _check_section(key, content.get(key, {}))
    _check_teachers(content)
    for key, value in _classes_in(content):
        _check_class(key, value)


def check_override(option: str, value: str, content: Mapping[str, Any]) -> None:
    """Raise for a key on the command line that the recipe has no place for.

    Args:
        option: such as `--teachers.large.weights`.
        value: what follows it.
        content: the recipe as it was read.

    Raises:
        UserError: The message says what to write instead.
    """
    if option == "--teacher" and value.endswith(RECIPE_SUFFIXES):
        raise UserError(f"a teacher's recipe is given as --teacher.recipe {shorten(value)}")
    if option == "--student.class_path":
        raise UserError(f"the network's class path is given as --student.model {shorten(value)}")
    if not option.startswith("--teachers."):
        return
    name = option.split(".")[1]
    known = content.get("teachers") or {}
    if not known:
        raise UserError(
            f"{shorten(option)} sets a key of a teacher, but the recipe has no teachers; write "
            "them in the recipe"
        )
    if name not in known:
        raise UserError(
            f"{shorten(option)}: the recipe has no teacher {name!r}{near_misses(name, known)}"
        )


def _check_section(key: str, value: object) -> None:
    if value is None:
        raise UserError(f"{key} is empty; write its keys below it, or leave it out")
    if not isinstance(value, dict):
        raise UserError(f"{key} must be a mapping of keys, got {_shown(value)}")
    if "class_path" in value:
        if key == "train":
            raise UserError(
                "train has no key 'class_path'; write keys such as epochs and optimizer"
            )
        raise UserError(
            f"{key} has no key 'class_path'; the network stands under model: "
            f"{key}: {{model: {{class_path: …}}}}"
        )


def _check_teachers(content: Mapping[str, Any]) -> None:
    teacher = content.get("teacher")
    if teacher is not None:
        _check_teacher("teacher", teacher)
    teachers = content.get("teachers")
    if teachers is None:
        return
    if not isinstance(teachers, dict) or not teachers:
        raise UserError(
            "teachers must be a mapping of names to their sections, such as "
            f"{{large: {{recipe: large.yaml}}}}, got {_shown(teachers)}"
        )
    for name, section in teachers.items():
        try:
            check_teacher_name(name)
        except UserError as error:
            raise UserError(f"teachers: {error}") from error
        _check_teacher(f"teachers.{name}", section)


def _check_teacher(key: str, value: object) -> None:
    if isinstance(value, str) and value.endswith(RECIPE_SUFFIXES):
        raise UserError(
            f"{key} must be a mapping of keys; a teacher that a recipe trains is "
            f"{{recipe: {shorten(value)}}}"
        )
    if not isinstance(value, dict):
        raise UserError(
            f"{key} must be a mapping of keys such as model, weights and recipe, got "
            f"{_shown(value)}"
        )
    _check_section(key, value)


def _classes_in(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give the values that describe an object, each with its key."""
    for key in ("data", "task", "method"):
        yield key, content.get(key)
    train = content.get("train", {})
    if "optimizer" in train:
        yield "train.optimizer", train["optimizer"]
    sections = {key: content.get(key) for key in ("student", "teacher")}
    for name, section in (content.get("teachers") or {}).items():
        sections[f"teachers.{name}"] = section
    for key, section in sections.items():
        if section is not None:
            yield f"{key}.model", section.get("model")


def _check_class(key: str, value: object) -> None:
    if value is None and key == "train.optimizer":
        raise UserError(f"{key} is null; give a class path such as {example_of(key)}")
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, dict):
        raise UserError(
            f"{key} must be a mapping with class_path and init_args, got {_shown(value)}"
        )
    path = value.get("class_path")
    if path is None:
        raise UserError(
            f"{key} must be a mapping with class_path and init_args, such as {{class_path: "
            f"{example_of(key)}}}, got {_shown(value)}"
        )
    if not isinstance(path, str):
        raise UserError(
            f"{key}.class_path must be text such as {example_of(key)}, got {_shown(path)}"
        )
    _check_arguments(key, value)


def _check_arguments(key: str, value: Mapping[str, Any]) -> None:
    for name in value:
        if name not in CLASS_KEYS:
            raise UserError(
                f"{key} must be a mapping with class_path and init_args, but has the key {name!r}; "
                f"arguments stand under init_args: {{class_path: {value['class_path']}, init_args: "
                f"{{{name}: …}}}}"
            )
    for name in ("init_args", "dict_kwargs"):
        arguments = value.get(name, {})
        if arguments is not None and not isinstance(arguments, dict):
            raise UserError(
                f"{key}.{name} must be a mapping of arguments to values, got {_shown(arguments)}"
            )


def check_nulls(values: Mapping[str, Any], optional: Sequence[str], section: str) -> None:
    """Raise for keys that are null and may not be.

    >>> check_nulls({"epochs": None, "num_threads": None}, ["num_threads"], "train.")
    Traceback (most recent call last):
    tutelage.errors.UserError: train.epochs is null; give it a value, or leave it out

    Args:
        values: by key.
        optional: the keys that may be null.
        section: what stands before the keys, for the message.
    """
    for key, value in values.items():
        if value is None and key not in optional:
            raise UserError(f"{section}{key} is null; give it a value, or leave it out")


def _shown(value: object) -> str:
    if value is None:
        return "null"
    text = shorten(repr(value) if not isinstance(value, str) else value)
    return text if text[:1] in "[{" else f"'{text}'"

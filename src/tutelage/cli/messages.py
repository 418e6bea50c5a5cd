"""Turn the parser's messages into one sentence that names the key, what it wants, and its nearest neighbours."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from re import Match

import tutelage.data
import tutelage.methods
import tutelage.tasks
from tutelage.engine import Recipe
from tutelage.engine.recipe import Student, TeacherNetwork, Training
from tutelage.errors import near_misses

GROUPS = {"student": Student, "teacher": TeacherNetwork, "train": Training}
OWNER = re.compile(r"Problem with given class_path '([\w.]+)': ")
CALLABLE = re.compile(r"expects a function or a callable class: (.*)\. Got value: Namespace\(class_path='([\w.]+)'")
KEY = re.compile(r'Parser key "([\w.]+)": ')
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "Sequence": "a list",
    "Mapping": "a mapping such as {a: b}",
    "TeacherNetwork": "a mapping of keys such as network and weights",
    "Module": "a class path",
}
KNOWN = {"Method": tutelage.methods, "Data": tutelage.data, "Task": tutelage.tasks}


@dataclass(frozen=True)
class Place:
    """Where a message comes from: a key of the recipe, or an argument of a class."""

    key: str | None
    owner: str | None

    def __str__(self) -> str:
        if self.key and self.owner:
            return f"the argument '{self.key}' of {self.owner}"
        return self.key or self.owner or "the recipe"


def mend(message: str) -> str:
    """Return the message as one line, with the options that were perhaps meant.

    >>> mend("Group 'train' does not accept option 'epochz'")
    "train has no key 'epochz'; did you mean ['epochs', 'warmup_epochs']?"
    >>> mend("Option 'tran.epochs' is not accepted")
    "the recipe has no key 'tran'; did you mean ['train', 'task']?"
    >>> mend("Parser key \\"train.epochs\\": Expected a <class 'int'>. Got value: many")
    "train.epochs must be a whole number, got 'many'"
    """
    place, core = _peel(" ".join(message.split()))
    for pattern, tell in FORMS:
        found = re.search(pattern, core)
        if found:
            return tell(found, place)
    return f"{place}: {core}" if place.key or place.owner else core


def _peel(line: str) -> tuple[Place, str]:
    """Return the innermost place that the message names, and what is said of it."""
    called = CALLABLE.search(line)
    if called:
        line = f"Problem with given class_path '{called[2]}': {called[1]}"
    pieces = OWNER.split(line)  # text, owner, text, owner, text …
    owner, core = pieces[-2] if len(pieces) > 1 else None, pieces[-1]
    keys = KEY.findall(core)
    core = KEY.split(core)[-1]
    for name, group in GROUPS.items():
        if owner is not None and owner.rpartition(".")[2] == group.__name__:
            return Place(f"{name}.{keys[-1]}" if keys else name, None), core
    return Place(keys[-1] if keys else None, owner), core


def _unknown(found: Match[str], place: Place) -> str:
    name = found[1].partition(".")[0]
    if place.owner is not None:
        return f"{place.owner} has no argument '{name}'{near_misses(name, _arguments(place.owner))}"
    if place.key in GROUPS:
        return f"{place.key} has no key '{name}'{near_misses(name, inspect.signature(GROUPS[place.key]).parameters)}"
    return f"the recipe has no key '{name}'{near_misses(name, inspect.signature(Recipe).parameters)}"


def _unknown_in_group(found: Match[str], place: Place) -> str:
    known = inspect.signature(GROUPS.get(found[1].split(".")[0], Recipe)).parameters
    return f"{found[1]} has no key '{found[2]}'{near_misses(found[2], known)}"


def _unknown_option(found: Match[str], place: Place) -> str:
    words = found[1].split()
    option = next((word for word in words if word.startswith("-")), None)
    if option is None:
        return f"'{words[0]}' is too much; options are written --key value, such as --train.epochs 3"
    name = option.lstrip("-").partition("=")[0]
    return f"{option.partition('=')[0]} is no option and no key of the recipe{near_misses(name, keys())}"


def keys() -> list[str]:
    """Return the keys of a recipe, those of its sections with a dot."""
    inner = [f"{name}.{key}" for name, group in GROUPS.items() for key in inspect.signature(group).parameters]
    return [*inspect.signature(Recipe).parameters, *inner]


def _lacking(found: Match[str], place: Place) -> str:
    if place.owner is not None:
        return f"{place.owner} needs {found[1]}; give a value under init_args"
    return f"the recipe lacks {found[1]}; the recipes under recipes/ show how it is written"


def _wrong_class(found: Match[str], place: Place) -> str:
    known = KNOWN.get(found[2])
    return f"{found[1]} is no {found[2]}" + (near_misses(found[1], known.__all__) if known else "; give another class")


def _no_name(found: Match[str], place: Place) -> str:
    return f"{found[1]} has no '{found[2]}'{near_misses(found[2], _names(found[1]))}"


def _kind(text: str) -> str:
    """Return a type of the parser in words."""
    if "Literal" in text:
        return "one of " + text[text.index("[") :]
    if "Sequence[" in text:
        inner = text[text.index("[") + 1 : -1]
        return {"int": "a list of whole numbers", "float": "a list of numbers"}.get(inner, "a list")
    name = re.sub(r"\[.*\]$", "", text).removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
    return KINDS.get(name, name)


def _union(text: str) -> str:
    parts = [_kind(part) for part in re.split(r", (?![^\[]*\])", text)]
    return " or ".join(dict.fromkeys(parts))


def _quoted(value: str) -> str:
    return value if value[:1] in "[{" else f"'{value}'"


FORMS: list[tuple[str, Callable[[Match[str], Place], str]]] = [
    (r"^Group '([\w.]+)' does not accept option '([\w.]+)'", _unknown_in_group),
    (r"^Option '([\w.]+)' is not accepted", _unknown),
    (r"^module '([\w.]+)' has no attribute '(\w+)'", _no_name),
    (
        r"^No module named '([\w.]+)'",
        lambda m, p: f"there is no module '{m[1]}' for {p}; check the class path, and that it is installed",
    ),
    (r"^unrecognized arguments: (.*)", _unknown_option),
    (r"^argument (--\S+): expected one argument", lambda m, p: f"{m[1]} needs a value, such as {m[1]} 1"),
    (r"^the following arguments are required: (.*?)(?: - Expected|$)", _lacking),
    (
        r"^Does not validate against any of the Union subtypes Subtypes: \[(.*)\] Errors: .* Given value: (.*)",
        lambda m, p: f"{p} must be {_union(m[1])}, got {_quoted(m[2])}",
    ),
    (
        r"^Expected a (.*?)\. Got value: (.*?)(?: - Expected a | Given value|$)",
        lambda m, p: f"{p} must be {_kind(m[1])}, got {_quoted(m[2])}",
    ),
    (
        r"^Expected a dot import path string: (.*)",
        lambda m, p: f"{p} must be a class path such as tutelage.methods.KD, got {_quoted(m[1])}",
    ),
    (
        r"^Not a valid subclass of (\w+)\. Got value: (.*?) Subclass types",
        lambda m, p: f"{p} must be a mapping with class_path and init_args, got {_quoted(m[2])}",
    ),
    (r"^Import path ([\w.]+) does not correspond to a subclass of (\w+)", _wrong_class),
    (r"^Expected '([\w.]+)' to be a subclass of <class '(\w+)'>", _wrong_class),
    (
        r"^Expected an instantiatable class, but ([\w.]+) is abstract",
        lambda m, p: f"{p} must be a mapping with class_path and init_args, and arguments stand under init_args",
    ),
    (r"^Unable to load config", lambda m, p: f"{p} must be a mapping of keys"),
]


def _arguments(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(vars(import_module(module))[name]).parameters)
    except (ImportError, KeyError, TypeError, ValueError):
        return []


def _names(module: str) -> list[str]:
    return [name for name in vars(import_module(module)) if not name.startswith("_")]

"""Turn an error of the parser into one sentence: the key, what it takes, and the nearest names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from re import Match

import tutelage.data
import tutelage.methods
import tutelage.tasks
from tutelage.errors import near_misses
from tutelage.recipes._lookup import arguments_of, public_names, takes_any
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig

GROUPS = {"student": StudentConfig, "teacher": TeacherConfig, "train": TrainConfig}
KNOWN = {"Method": tutelage.methods, "Data": tutelage.data, "Task": tutelage.tasks}

# What a name was called before, where the new one is too unlike to be guessed.
FORMER_NAMES = {
    "Alone": "Baseline",
    "Mimic": "FitNet",
    "Together": "CombinedMethod",
    "alone": "student_task_weight",
    "budget": "share",
    "checkpoint_every": "save_every",
    "clip_norm": "max_grad_norm",
    "decay_vectors": "weight_decay_norm_and_bias",
    "ema": "ema_decay",
    "feature": "feature_weight",
    "image": "input_shape",
    "inter": "inter_weight",
    "intra": "intra_weight",
    "keep": "checkpoint",
    "map_every": "cka_every",
    "network": "model",
    "remember": "cache",
    "scheme": "schedule",
    "trackers": "log_with",
    "undecayed": "no_weight_decay",
}

OWNER = re.compile(r"Problem with given class_path '([\w.]+)': ")
CALLABLE = re.compile(
    r"expects a function or a callable class: (.*)\. Got value: Namespace\(class_path='([\w.]+)'"
)
KEY = re.compile(r'Parser key "([\w.]+)": ')
WHOLE_FILE = 'Parser key "config": '
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "Sequence": "a list",
    "Mapping": "a mapping such as {a: b}",
    "TeacherConfig": "a mapping of keys such as model and weights",
    "Module": "a class path",
}
LISTS = {"int": "a list of whole numbers", "float": "a list of numbers"}


@dataclass(frozen=True)
class Place:
    """Where a message comes from.

    Attributes:
        key: of the recipe, or the argument of a class.
        owner: the class, for an argument.
    """

    key: str | None
    owner: str | None

    def __str__(self) -> str:
        if self.key and self.owner:
            return f"the argument '{self.key}' of {self.owner}"
        return self.key or self.owner or "the recipe"


def explain(message: str) -> str:
    """Return a message of the parser as one line, with the names that were perhaps meant.

    >>> explain("Group 'train' does not accept option 'epochz'")
    "train has no key 'epochz'; did you mean ['epochs', 'warmup_epochs']?"
    >>> explain("Option 'tran.epochs' is not accepted")
    "the recipe has no key 'tran'; did you mean ['train', 'task']?"
    >>> explain("Group 'train' does not accept option 'keep'")
    "train has no key 'keep'; did you mean ['checkpoint']?"
    >>> explain("Parser key \\"train.epochs\\": Expected a <class 'int'>. Got value: many")
    "train.epochs must be a whole number, got 'many'"
    """
    place, core = _locate(" ".join(message.split()).removeprefix(WHOLE_FILE))
    for pattern, write in FORMS:
        match = re.search(pattern, core)
        if match:
            return write(match, place)
    core = shorten(core, 500)
    return f"{place}: {core}" if place.key or place.owner else core


def shorten(text: str, length: int = 120) -> str:
    """Return a text that a user gave so that it fits into a message.

    >>> shorten("x" * 300, 10)
    'xxxxxxx … (300 characters)'
    """
    return text if len(text) <= length else f"{text[: length - 3]} … ({len(text)} characters)"


def _locate(line: str) -> tuple[Place, str]:
    """Return the innermost place that the message names, and what it says about it."""
    called = CALLABLE.search(line)
    if called:
        line = f"Problem with given class_path '{called[2]}': {called[1]}"
    pieces = OWNER.split(line)  # text, owner, text, owner, text …
    owner = pieces[-2] if len(pieces) > 1 else None
    core = pieces[-1]
    keys = KEY.findall(core)
    core = KEY.split(core)[-1]
    for name, group in GROUPS.items():
        if owner is not None and owner.rpartition(".")[2] == group.__name__:
            return Place(f"{name}.{keys[-1]}" if keys else name, None), core
    return Place(keys[-1] if keys else None, owner), core


def _suggest(wrong: str, known: Iterable[str]) -> str:
    """Return the end of a sentence with the names that were perhaps meant.

    That is the new name of a former one, or names that hold the wrong one, or the nearest ones.
    """
    known = list(known)
    section, dot, name = wrong.rpartition(".")
    renamed = f"{section}{dot}{FORMER_NAMES.get(name)}"
    in_section = [key for key in known if key.endswith(f".{wrong}")]
    longer = [key for key in known if wrong in key and len(wrong) > 2]
    for names in ([renamed] if renamed in known else [], in_section, longer[:3]):
        if names:
            return f"; did you mean {names}?"
    return near_misses(wrong, known)


def _field_names(section: type) -> list[str]:
    return [field.name for field in fields(section)]


def _all_keys() -> list[str]:
    """Return the keys of a recipe, those of its sections with a dot."""
    names = _field_names(Recipe)
    for name, group in GROUPS.items():
        names += [f"{name}.{key}" for key in _field_names(group)]
    return names


def _unknown(match: Match[str], place: Place) -> str:
    name = match[1].partition(".")[0]
    if place.owner is not None:
        if takes_any(place.owner):
            return (
                f"{place.owner} has no argument '{name}' of its own; if it hands '{name}' on, "
                f"write it under dict_kwargs, beside init_args: dict_kwargs: {{{name}: …}}"
            )
        return f"{place.owner} has no argument '{name}'{_suggest(name, arguments_of(place.owner))}"
    section = GROUPS.get(place.key or "", Recipe)
    owner = "the recipe" if section is Recipe else place.key
    return f"{owner} has no key '{name}'{_suggest(name, _field_names(section))}"


def _unknown_in_group(match: Match[str], place: Place) -> str:
    section = GROUPS.get(match[1].split(".")[0], Recipe)
    name = match[2].partition(".")[0]
    return f"{match[1]} has no key '{name}'{_suggest(name, _field_names(section))}"


def _unknown_option(match: Match[str], place: Place) -> str:
    words = match[1].split()
    option = next((word for word in words if word.startswith("-")), None)
    if option is None:
        return (
            f"'{words[0]}' is too much; options are written --key value, such as --train.epochs 3"
        )
    option = option.partition("=")[0]
    return f"{option} is no option and no key of the recipe" + _suggest(
        option.lstrip("-"), _all_keys()
    )


def _missing(match: Match[str], place: Place) -> str:
    if place.owner is not None:
        return f"{place.owner} needs {match[1]}; give a value under init_args"
    return (
        f"the recipe lacks {match[1]}; `tutelage recipes copy NAME DIR` gives one to start from, "
        "with its _setting.yaml"
    )


def _wrong_class(match: Match[str], place: Place) -> str:
    known = KNOWN.get(match[2])
    if known is None:
        return f"{match[1]} is no {match[2]}; give another class"
    return f"{match[1]} is no {match[2]}{_suggest(match[1], known.__all__)}"


def _no_such_name(match: Match[str], place: Place) -> str:
    return f"{match[1]} has no '{match[2]}'{_suggest(match[2], public_names(match[1]))}"


def _no_such_module(match: Match[str], place: Place) -> str:
    return (
        f"there is no module '{match[1]}' for {place}; check the class path, and that it is "
        "installed"
    )


def _no_value(match: Match[str], place: Place) -> str:
    return f"{match[1]} needs a value, such as {match[1]} 1"


def _wrong_union(match: Match[str], place: Place) -> str:
    parts = [_kind(part) for part in re.split(r", (?![^\[]*\])", match[1])]
    return f"{place} must be {' or '.join(dict.fromkeys(parts))}, got {_quoted(match[2])}"


def _wrong_type(match: Match[str], place: Place) -> str:
    kind = _kind(match[1])
    sentence = f"{place} must be {kind}, got {_quoted(match[2])}"
    if match[2] in ("True", "False") and (kind == "text" or kind.startswith("one of")):
        sentence += " (YAML reads yes, on, no and off so; put text in quotes)"
    return sentence


def _no_class_path(match: Match[str], place: Place) -> str:
    return f"{place} must be a class path such as tutelage.methods.KD, got {_quoted(match[1])}"


def _no_class(match: Match[str], place: Place) -> str:
    return f"{place} must be a mapping with class_path and init_args, got {_quoted(match[2])}"


def _abstract(match: Match[str], place: Place) -> str:
    return (
        f"{place} must be a mapping with class_path and init_args, and arguments stand under "
        "init_args"
    )


def _no_mapping(match: Match[str], place: Place) -> str:
    return f"{place} must be a mapping of keys"


def _kind(text: str) -> str:
    """Return a type of the parser in words."""
    if "Literal" in text:
        return "one of " + text[text.index("[") :]
    if "Sequence[" in text:
        return LISTS.get(text[text.index("[") + 1 : -1], "a list")
    name = re.sub(r"\[.*\]$", "", text).removeprefix("<class '").removesuffix("'>")
    name = name.rpartition(".")[2]
    return KINDS.get(name, name)


def _quoted(value: str) -> str:
    value = shorten(value)
    return value if value[:1] in "[{" else f"'{value}'"


# Pattern of a message -> what writes the sentence; the first that matches does.
FORMS: list[tuple[str, Callable[[Match[str], Place], str]]] = [
    (r"^Group '([\w.]+)' does not accept option '([\w.]+)'", _unknown_in_group),
    (r"^Option '([\w.]+)' is not accepted", _unknown),
    (r"^module '([\w.]+)' has no attribute '(\w+)'", _no_such_name),
    (r"^No module named '([\w.]+)'", _no_such_module),
    (r"^unrecognized arguments: (.*)", _unknown_option),
    (r"^argument (--\S+): expected one argument", _no_value),
    (r"^the following arguments are required: (.*?)(?: - Expected|$)", _missing),
    (
        r"^Does not validate against any of the Union subtypes Subtypes: \[(.*)\] "
        r"Errors: .* Given value: (.*)",
        _wrong_union,
    ),
    (
        r"^Expected a (.*?)\. Got value: (.*?)(?: - Expected a | Given value|$)",
        _wrong_type,
    ),
    (r"^Expected a dot import path string: (.*)", _no_class_path),
    (r"^Not a valid subclass of (\w+)\. Got value: (.*?) Subclass types", _no_class),
    (r"^Import path ([\w.]+) does not correspond to a subclass of (\w+)", _wrong_class),
    (r"^Expected '([\w.]+)' to be a subclass of <class '(\w+)'>", _wrong_class),
    (r"^Expected an instantiatable class, but ([\w.]+) is abstract", _abstract),
    (r"^Unable to load config", _no_mapping),
]

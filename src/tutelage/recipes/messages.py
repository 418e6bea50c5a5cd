"""Turn an error of the parser into one sentence: the key, what it takes, and the nearest names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from re import Match

import tutelage.data
import tutelage.methods
import tutelage.tasks
from tutelage.errors import EXTRAS, NotInstalledError
from tutelage.recipes._kinds import kind_in_words
from tutelage.recipes._lookup import arguments_of, lacks_of, public_names, says_no_type, takes_any
from tutelage.recipes._names import FORMER_CLASSES, example_of, suggest, suggest_class
from tutelage.recipes._text import shorten
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig

GROUPS = {"student": StudentConfig, "teacher": TeacherConfig, "train": TrainConfig}
KNOWN = {"Method": tutelage.methods, "Data": tutelage.data, "Task": tutelage.tasks}

OWNER = re.compile(r"Problem with given class_path '([\w.]+)': ")
CALLABLE = re.compile(
    r"expects a function or a callable class: (.*)\. Got value: Namespace\(class_path='([\w.]+)'"
)
KEY = re.compile(r'Parser key "([\w.]+)": ')
WHOLE_FILE = 'Parser key "config": '


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


def unknown_keyword(message: str) -> tuple[str | None, str | None]:
    """Return function and argument if the message is about one that it may hand on, or None."""
    place, core = _locate(" ".join(message.split()).removeprefix(WHOLE_FILE))
    match = re.search(r"^Option '([\w.]+)' is not accepted", core)
    if match is None or place.owner is None or not takes_any(place.owner):
        return None, None
    return place.owner, match[1].partition(".")[0]


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
        return f"{place.owner} has no argument '{name}'{suggest(name, arguments_of(place.owner))}"
    section = GROUPS.get(place.key or "", Recipe)
    owner = "the recipe" if section is Recipe else place.key
    return f"{owner} has no key '{name}'{suggest(name, _field_names(section))}"


def _unknown_in_group(match: Match[str], place: Place) -> str:
    section = GROUPS.get(match[1].split(".")[0], Recipe)
    name = match[2].partition(".")[0]
    return f"{match[1]} has no key '{name}'{suggest(name, _field_names(section))}"


def _unknown_option(match: Match[str], place: Place) -> str:
    words = match[1].split()
    option = next((word for word in words if word.startswith("-")), None)
    if option is None:
        return (
            f"'{shorten(words[0])}' is too much; options are written --key value, such as "
            "--train.epochs 3"
        )
    option = option.partition("=")[0]
    if option == "--device":
        return (
            "there is no option --device: a GPU is taken where there is one; set "
            "CUDA_VISIBLE_DEVICES for another one, or ACCELERATE_USE_CPU=true for the CPU"
        )
    return f"{shorten(option)} is no option and no key of the recipe" + suggest(
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
    return _wrong_subclass(match[1], match[2])


def _wrong_subclass(path: str, base: str) -> str:
    if says_no_type(path):
        name = path.rpartition(".")[2]
        kind = "torch.nn.Module" if base == "Module" else base
        return f"{path} does not say what it returns; annotate it, as in def {name}(...) -> {kind}"
    known = KNOWN.get(base)
    if known is None:
        return f"{path} is no {base}; give another class"
    return f"{path} is no {base}{suggest(path, known.__all__)}"


def _wrong_member(match: Match[str], place: Place) -> str:
    return _wrong_subclass(match[2], match[3])


def _no_such_name(match: Match[str], place: Place) -> str:
    if match[1].startswith("tutelage") and match[2] in FORMER_CLASSES:
        return f"{match[1]} has no '{match[2]}'; it is {FORMER_CLASSES[match[2]]} now"
    return f"{match[1]} has no '{match[2]}'{suggest(match[2], public_names(match[1]))}"


def _no_such_module(match: Match[str], place: Place) -> str:
    if match[1] in EXTRAS:
        return str(NotInstalledError(str(place), match[1]))
    return (
        f"there is no module '{match[1]}' for {place}; check the class path, and that it is "
        "installed"
    )


def _no_value(match: Match[str], place: Place) -> str:
    return f"{match[1]} needs a value, such as {match[1]} 1"


def _wrong_union(match: Match[str], place: Place) -> str:
    parts = [kind_in_words(part) for part in re.split(r", (?![^\[]*\])", match[1])]
    return f"{place} must be {' or '.join(dict.fromkeys(parts))}, got {_quoted(match[2] or '')}"


def _wrong_type(match: Match[str], place: Place) -> str:
    kind = kind_in_words(match[1])
    sentence = f"{place} must be {kind}, got {_quoted(match[2])}"
    if match[2] in ("True", "False") and (kind == "text" or kind.startswith("one of")):
        sentence += " (YAML reads yes, on, no and off so; put text in quotes)"
    return sentence


def _no_class_path(match: Match[str], place: Place) -> str:
    key = place.key or ""
    sentence = f"{place} must be a class path such as {example_of(key)}, got {_quoted(match[1])}"
    return sentence + suggest_class(key, match[1])


def _no_class(match: Match[str], place: Place) -> str:
    return f"{place} must be a mapping with class_path and init_args, got {_quoted(match[2])}"


def _abstract(match: Match[str], place: Place) -> str:
    return f"{place}: {match[1]} cannot be used, since it does not define {lacks_of(match[1])}"


def _builtin(match: Match[str], place: Place) -> str:
    return f"{place}: its class path names a builtin function, whose arguments cannot be known"


def _no_subclasses(match: Match[str], place: Place) -> str:
    return f"{place} must be a mapping of keys, got {_quoted(match[1])}"


def _nested(match: Match[str], place: Place) -> str:
    return f"{place} has no '{match[1]}' to set; write it in the recipe"


def _no_mapping(match: Match[str], place: Place) -> str:
    return f"{place} must be a mapping of keys"


def _quoted(value: str) -> str:
    value = shorten(value)
    return value if value.startswith(("[", "{")) else f"'{value}'"


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
        r"^Expected a (.*?)\. Got value: (.*?)(?: - Expected a | Given value|$)",
        _wrong_type,
    ),
    (r"NestedArg\(key='([\w./-]+)', val=", _nested),
    (
        r"^Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: "
        r".*?Import path ([\w.]+) does not correspond to a subclass of (\w+)",
        _wrong_member,
    ),
    (
        r"^Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] "
        r"Errors: .*? Given value:(?: (.*?))?(?: - Expected a <class| Given value type|$)",
        _wrong_union,
    ),
    (r"^Expected a dot import path string: (.*)", _no_class_path),
    (r"^Not a valid subclass of (\w+)\. Got value: (.*?) Subclass types", _no_class),
    (r"^Import path ([\w.]+) does not correspond to a subclass of (\w+)", _wrong_class),
    (r"^Expected '([\w.]+)' to be a subclass of <class '(\w+)'>", _wrong_class),
    (r"^Expected an instantiatable class, but ([\w.]+) is abstract", _abstract),
    (r"^no signature found for builtin", _builtin),
    (r"^Subclasses are disabled for \w+, thus '(.*?)' is not accepted", _no_subclasses),
    (r"^Expected an import path or a subclass spec, but got (.*?)\. Got value", _no_class_path),
    (
        r"^Dict must include a class_path and optionally init_args, but got (.*?)\. Got",
        _no_class_path,
    ),
    (r"^Unable to load config", _no_mapping),
]

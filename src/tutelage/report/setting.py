"""What was run, by the recipe in a run's folder: data, labels and networks in a few words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tutelage.report.folder import errors_of, read_text

MAX_TEXT = 160  # characters of one value of a recipe

# Of a network the `repr` has every layer; here it is its class.
PYTHON = {
    "data": r"^Recipe\(data=(.*?), task=",
    "labels": r", num_labels=(\w+), seed=",
    "student": r", student=StudentConfig\(model=(\w+)",
    "teacher": r", teacher=TeacherConfig\(model=(\w+)",
}

Pairs = list[tuple[str, str]]


def read_setting(recipe: Path) -> Pairs:
    """Return (what it is, text) for the data, the labels and the networks of a run.

    A recipe that is not as tutelage writes it has no setting: the page shows it as it is.

    Args:
        recipe: recipe.yaml of a run's folder.
    """
    text = read_text(recipe)
    if text.startswith("Recipe("):
        return _of_python(text)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return []
    if not isinstance(content, Mapping) or not isinstance(content.get("student"), Mapping):
        return []
    with errors_of(recipe):
        labels = content.get("num_labels")
        pairs = [
            ("data", _class_text(content.get("data"))),
            ("labels", "all of the training part" if labels is None else _short(labels)),
            ("student", _class_text(content["student"].get("model"))),
        ]
        teachers = {"teacher": content.get("teacher"), **(content.get("teachers") or {})}
        for name, section in teachers.items():
            if isinstance(section, Mapping):
                label = name if name == "teacher" else f"teacher {name}"
                pairs.append((_short(label), _class_text(section.get("model"))))
        return [(name, value) for name, value in pairs if value]


def _of_python(text: str) -> Pairs:
    """Return the setting of a recipe that was built in Python, whose file has its `repr`.

    >>> _of_python("Recipe(data=Digits(augment=False), task=Any(), num_labels=None, seed=0)")
    [('data', 'Digits(augment=False)'), ('labels', 'all of the training part')]
    """
    pairs = []
    for name, pattern in PYTHON.items():
        match = re.search(pattern, text)
        if match is not None:
            value = match.group(1)
            is_all = name == "labels" and value == "None"
            pairs.append((name, "all of the training part" if is_all else _cut(value)))
    return pairs


def _class_text(section: Any) -> str:
    """Return a class and its arguments as they would be written in Python; defaults of None go.

    >>> _class_text({"class_path": "tutelage.models.small_cnn", "init_args": {"width": 6}})
    'small_cnn(width=6)'
    """
    if not isinstance(section, Mapping) or "class_path" not in section:
        return ""
    arguments = section.get("init_args")
    given = []
    for name, value in arguments.items() if isinstance(arguments, Mapping) else ():
        if value is not None:
            given.append(f"{_short(name)}={_argument(value)}")
    text = str(section["class_path"]).rpartition(".")[2]
    return _cut(f"{text}({', '.join(given)})" if given else text)


def _argument(value: Any) -> str:
    if isinstance(value, Mapping):  # the class alone: YAML can nest one thing any number of times
        return _short(value.get("class_path", "{…}")).rpartition(".")[2]
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, (list, Mapping)):
        if any(isinstance(item, (list, Mapping)) for item in value):
            return "[…]"
        return _cut(", ".join(map(str, value))) if len(value) < 5 else "[…]"
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"

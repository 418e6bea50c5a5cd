"""Which columns of a table hold images, labels and parts, and what its labels are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.data._tables import Table, sorted_names, text_of
from tutelage.data.sets._image_tree import PART_NAMES
from tutelage.errors import UserError

IMAGE_NAMES = (
    "image",
    "path",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "file",
    "filename",
    "file_name",
    "image_name",
    "image_id",
    "img",
)
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "tags", "species")
SPLIT_NAMES = ("split", "part", "set", "subset", "dataset")
SEPARATORS = ("|", ";", ",", " ")  # between the labels of a cell, in the order of being tried
YES = {"1", "1.0", "true", "True", "TRUE"}
NO = {"0", "0.0", "false", "False", "FALSE", ""}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are for.

    Attributes:
        image: of the paths or of the images.
        label: of the labels; several are one 0/1 column a class.
        split: of the parts, or None.
        guessed: the settings that were not given, with what was taken for them.
    """

    image: str
    label: tuple[str, ...]
    split: str | None
    guessed: dict[str, str]


def choose_columns(
    names: Sequence[str],
    source: object,
    image: str | None,
    label: str | Sequence[str] | None,
    split: str | None,
) -> Columns:
    """Return the columns: those that are given, and the first one of a usual name for the others.

    Args:
        names: of all columns.
        source: the table, for messages.
        image: a setting; None looks for a usual name.
        label: a setting; None looks for a usual name.
        split: a setting; None looks for a usual name, and there may be none.

    Raises:
        UserError: If none has a usual name.
    """
    guessed: dict[str, str] = {}

    def guess(key: str, usual: Sequence[str]) -> str | None:
        by_case = {name.lower(): name for name in reversed(names)}
        found = next((by_case[name] for name in usual if name in by_case), None)
        if found is not None:
            guessed[key] = found
        return found

    image = guess("image", IMAGE_NAMES) if image is None else image
    label = guess("label", LABEL_NAMES) if label is None else label
    split = guess("split", SPLIT_NAMES) if split is None else split
    for key, value, usual in (("image", image, IMAGE_NAMES), ("label", label, LABEL_NAMES)):
        if value is None:
            raise UserError(
                f"{source} has the columns {list(names)[:8]}, none of which is named as {key}s "
                f"usually are ({', '.join(usual[:6])}, …); set data.{key} to the column's name"
            )
    assert image is not None
    assert label is not None
    labels = (label,) if isinstance(label, str) else tuple(label)
    return Columns(image, labels, split, guessed)


def rows_of_parts(table: Table, split: str | None) -> dict[str, list[int]]:
    """Return the rows of `train`, `validation` and `test`, of those that the split column names.

    Without such a column all rows are `train`.

    Raises:
        UserError: If a row names another part, or none is for training.
    """
    if split is None:
        return {"train": list(range(len(table)))}
    known = {name: part for part, names in PART_NAMES.items() for name in names}
    parts: dict[str, list[int]] = {}
    for row, value in enumerate(table.column(split, "data.split")):
        part = known.get(text_of(value).lower())
        if part is None:
            raise UserError(
                f"{table.path}, row {row + 1}: the column {split!r} says {text_of(value)[:40]!r}, "
                "but parts are train, val and test; write one of them, or set data.split to "
                "another column"
            )
        parts.setdefault(part, []).append(row)
    if "train" not in parts:
        raise UserError(f"{table.path}: no row of the column {split!r} is for training")
    return parts


def single_labels(table: Table, column: str) -> list[str]:
    """Return one label a row as text; empty where there is none.

    Raises:
        UserError: If a cell holds a list of labels.
    """
    values = table.column(column, "data.label")
    for row, value in enumerate(values):
        if isinstance(value, (list, tuple)):
            raise UserError(
                f"{table.path}, row {row + 1}: {column!r} holds a list of labels; set "
                "data.multi_label: true, and the task to MultiLabelClassification"
            )
    return [text_of(value) for value in values]


def label_sets(
    table: Table, columns: Sequence[str], separator: str | None
) -> tuple[list[set[str]], list[str] | None]:
    """Return the labels of every row.

    Args:
        table: with the labels.
        columns: one with all labels of a row, or one of 0 and 1 for each class.
        separator: between the labels of a cell; None takes the first of `| ; ,` and space that
            occurs.

    Returns:
        The labels of every row, and the names of the classes if the columns are the classes.

    Raises:
        UserError: If a cell is of another kind.
    """
    if len(columns) == 1:
        values = table.column(columns[0], "data.label")
        if separator is None:
            texts = [value for value in values if isinstance(value, str)]
            separator = next((s for s in SEPARATORS if any(s in text for text in texts)), None)
        return [_labels_of(value, separator) for value in values], None
    sets: list[set[str]] = [set() for _ in range(len(table))]
    for name in columns:
        for row, value in enumerate(table.column(name, "data.label")):
            text = str(value) if isinstance(value, bool) else text_of(value)
            if text in YES:
                sets[row].add(name)
            elif text not in NO:
                raise UserError(
                    f"{table.path}, row {row + 1}: the column {name!r} of a class is 0 or 1, got "
                    f"{text[:40]!r}"
                )
    return sets, list(columns)


def multi_hot(sets: Sequence[set[str]], classes: Sequence[str]) -> Tensor:
    """Return sets of labels as float32 (N, C) of 0 and 1."""
    places = {name: place for place, name in enumerate(classes)}
    rows = torch.zeros(len(sets), len(classes))
    for row, labels in enumerate(sets):
        for label in labels:
            rows[row, places[label]] = 1.0
    return rows


def classes_of(labels: Sequence[str] | Sequence[set[str]], source: object) -> list[str]:
    """Return the names of all classes in order.

    Raises:
        UserError: If there are fewer than two.
    """
    counts: Counter[str] = Counter()
    for label in labels:
        counts.update(label if isinstance(label, set) else [label] if label else [])
    if len(counts) < 2:
        raise UserError(
            f"{source} has {len(counts)} classes in its training rows, at least 2 are needed; "
            "check data.label"
        )
    return sorted_names(set(counts))


def _labels_of(value: Any, separator: str | None) -> set[str]:
    if isinstance(value, (list, tuple, set)):
        texts = [text_of(entry) for entry in value]
    else:
        text = text_of(value)
        texts = [part.strip() for part in text.split(separator)] if separator else [text]
    return {text for text in texts if text}

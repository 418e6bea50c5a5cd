"""Folders and tables of images with classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tutelage.data import HuggingFaceImages, ImageFolder, ImageSet, ImageTable, TarImages
from tutelage.data._tables import TABLE_ENDINGS, column_names, read_table
from tutelage.data.file_set import FileSet
from tutelage.data.image_data import ImageData
from tutelage.data.sets._image_tree import ENDINGS, PART_NAMES, find_tree
from tutelage.data.sets._interaction_lookup import has_users_and_items
from tutelage.data.sets._labeled_rows import (
    IMAGE_NAMES,
    SEPARATORS,
    choose_columns,
    rows_of_parts,
)
from tutelage.data.sets.hugging_face import SAVED
from tutelage.data.sets.image_table import find_tables
from tutelage.errors import NotInstalledError, UserError
from tutelage.recipes.starter.found import Found, class_shares, median_sides, part_counts

MAX_SMALL = 64  # shorter side of images for which the small networks are chosen
USUAL_SIZE = 224
MIN_MULTI = 0.02  # share of cells with a separator from which on they hold several labels


def is_tree(root: Path) -> bool:
    """Return whether a folder has two folders with images at least, or parts that do."""
    if not root.is_dir():
        return False
    try:
        return len(class_folders(root)) >= 2
    except UserError:
        return True  # it looks like one, and reading it says what is wrong


def class_folders(root: Path) -> list[Path]:
    """Return the folders with images, of the training part if there are parts.

    Raises:
        UserError: If there is something wrong with the parts.
    """
    tree = find_tree(root)
    folders = [tree.parts["train"] / name for name in tree.classes]
    return [folder for folder in folders if _holds_image(folder)]


def read_tree(root: Path) -> Found:
    """Read one folder a class."""
    tree = find_tree(root)
    remarks = {"root": "one folder a class"}
    if tree.parts["train"] != root:
        remarks["root"] = "one folder a class in " + ", ".join(
            path.name for path in tree.parts.values()
        )
    arguments: dict[str, Any] = {"root": str(root), "size": USUAL_SIZE}
    _say_of_cut(arguments, remarks, tree.parts)
    return _found(ImageFolder(str(root)), "one folder a class", arguments, remarks)


def is_table(root: Path) -> bool:
    """Return whether there is a table with a column of paths, which is none of interactions."""
    return any(
        _has(names, IMAGE_NAMES) and not has_users_and_items(names) and not stored
        for names, stored in _columns(tables_in(root))
    )


def read_listed(root: Path) -> Found:
    """Read a table of paths and labels."""
    tables = find_tables(root)
    table = read_table(tables["train"])
    columns = choose_columns(table.names, table.path, None, None, None)
    arguments: dict[str, Any] = {
        "root": str(root),
        "image": columns.image,
        "label": columns.label[0],
    }
    remarks = {
        "root": "the table" if root.is_file() else "the folder of the table",
        "image": f"column of the paths, of {', '.join(table.names[:6])}",
        "label": "column of the labels",
    }
    cells = table.column(columns.label[0], "data.label")
    separator = _separator(cells)
    if separator is not None or isinstance(cells[0], (list, tuple)):
        arguments["multi_label"] = True
        remarks["multi_label"] = "an image has any number of classes; false for one class each"
        if separator is not None:
            arguments["separator"] = separator
    if columns.split is not None:
        arguments["split"] = columns.split
        remarks["split"] = "column that says train, val or test"
    parts = {*tables, *rows_of_parts(table, columns.split)}
    arguments["size"] = USUAL_SIZE
    _say_of_cut(arguments, remarks, parts)
    own = {key: value for key, value in arguments.items() if key != "size"}
    return _found(ImageTable(**own), f"images listed in {table.path.name}", arguments, remarks)


def is_parquet(root: Path) -> bool:
    """Return whether there are parquet files with images, or a folder that `datasets` saved."""
    if any((root / name).is_file() for name in SAVED):
        return True
    # A clone of a data set of the Hub has them in data/, or in one folder for each split.
    inner = sorted(path for path in root.glob("*/*.parquet")) if root.is_dir() else []
    tables = inner[:1] if inner and not any(root.glob("*.parquet")) else tables_in(root)
    return any(stored for _, stored in _columns(tables))


def read_stored(root: Path) -> Found:
    """Read images in parquet files, or in a folder that `datasets` has saved."""
    data = HuggingFaceImages(str(root))
    return _found(
        data,
        "images in files of Hugging Face datasets",
        {"source": str(root), "train": "train", "val": None, "test": None},
        {
            "source": "a folder, or a name on the hub",
            "train": "names of the splits: the one that is trained on,",
            "val": "that for validation (null takes `validation` if it is there, or cuts a share),",
            "test": "and that for the test (null takes `test` if it is there, or cuts 20 %)",
        },
    )


def is_tar(root: Path) -> bool:
    """Return whether there are tar shards for training."""
    return bool(_shards(root))


def read_tar(root: Path) -> Found:
    """Read images in tar shards."""
    patterns = _shards(root)
    if not patterns:
        raise UserError(f"{root} holds no train*.tar; give the folder of the shards")
    arguments: dict[str, Any] = {
        "root": str(root),
        **{part: patterns.get(part) for part in ("train", "val", "test")},
    }
    remarks = {
        "root": "folder of the shards",
        "train": "patterns of the shards: of those that are trained on,",
        "val": "for validation (null cuts a share of training),",
        "test": "and for the test (null cuts 20 % of training)",
    }
    return _found(TarImages(**arguments), "images in tar shards", arguments, remarks)


def tables_in(root: Path) -> list[Path]:
    """Return the tables in a folder, or the table that this is."""
    if root.is_file():
        return [root] if root.suffix.lower() in TABLE_ENDINGS else []
    return sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_ENDINGS)


def _columns(tables: Sequence[Path]) -> list[tuple[list[str], bool]]:
    """Return the columns of each table, and whether it holds images."""
    found = []
    for path in tables:
        try:
            names = column_names(path)
        except NotInstalledError:
            raise
        except UserError:
            continue
        found.append((names, path.suffix.lower() == ".parquet" and _stores_images(path)))
    return found


def _stores_images(path: Path) -> bool:
    from pyarrow import parquet, types

    schema = parquet.read_schema(path)
    kinds = {field.name: field.type for field in schema}
    return any(
        types.is_binary(kind) or (types.is_struct(kind) and kind.get_field_index("bytes") >= 0)
        for kind in kinds.values()
    )


def _has(names: list[str], usual: tuple[str, ...]) -> bool:
    return any(name.lower() in usual for name in names)


def _separator(cells: list[Any]) -> str | None:
    """Return what lies between several labels of a cell, or None if cells hold one."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell]
    for separator in SEPARATORS[:3]:  # a space may be part of a name
        with_it = [text for text in texts if separator in text]
        if with_it and len(with_it) >= MIN_MULTI * len(texts):
            return separator
    return None


def _say_of_cut(arguments: dict[str, Any], remarks: dict[str, str], parts: Collection[str]) -> None:
    """Write down which parts are cut from the training part, since there are none."""
    if "test" not in parts:
        remarks["root"] += "; there is no test part, so that 20 % of training is taken for it"
    if "validation" not in parts:
        arguments["validation"] = 0.1
        remarks["validation"] = "there is no validation part, so that this share of training is"


def _found(
    data: ImageData, layout: str, arguments: dict[str, Any], remarks: dict[str, str]
) -> Found:
    counts, parts = part_counts(data)
    train = parts["train"]
    assert isinstance(train, ImageSet)
    sides = _sides(train)
    arguments["size"] = chosen_size(sides[0])
    remarks["size"] = "images are brought to this square, in pixels; smaller trains faster"
    is_multi = train.labels.ndim == 2
    return Found(
        root=Path(next(iter(arguments.values()))),
        layout=layout,
        task="multi-label classification" if is_multi else "classification",
        data=type(data).__name__,
        arguments=arguments,
        remarks=remarks,
        classes=data.classes,
        counts=counts,
        sides=sides,
        facts=[class_shares(train, data.classes)],
    )


def chosen_size(side: int) -> int:
    """Return the square to which images with this shorter side are brought.

    >>> [chosen_size(side) for side in (28, 32, 100, 1200)]
    [28, 32, 96, 224]
    """
    if side <= MAX_SMALL:
        return max(8, side - side % 4)
    return min(USUAL_SIZE, side - side % 32)


def _sides(part: ImageSet) -> tuple[int, int]:
    assert isinstance(part, FileSet)
    paths = part.files.names()
    if paths:
        return median_sides([Path(paths[row]) for row in part.rows.tolist()])
    rows = part.rows[:: max(1, len(part) // 50)].tolist()
    sizes = [tuple(part.files.decode_row(row).shape[1:]) for row in rows]
    return round(median(map(min, sizes))), round(median(map(max, sizes)))


def _shards(root: Path) -> dict[str, str]:
    """Return the pattern of the shards of each part, for which there are any."""
    if not root.is_dir():
        return {}
    found: dict[str, str] = {}
    for part, names in PART_NAMES.items():
        fitting = [f"{name}*.tar" for name in names if any(root.glob(f"{name}*.tar"))]
        if fitting:
            found["val" if part == "validation" else part] = fitting[0]
    return found if "train" in found else {}


def _holds_image(folder: Path) -> bool:
    return any(path.suffix.lower() in ENDINGS for path in folder.rglob("*"))

"""Images that a table lists with their labels: CSV, TSV or parquet."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data._files import check_image_files
from tutelage.data._overlap import warn_copies
from tutelage.data._settings import check_root
from tutelage.data._tables import TABLE_ENDINGS, Table, read_table, text_of
from tutelage.data._text import is_file, warn_counts
from tutelage.data.file_set import FileSet, ImageFiles
from tutelage.data.image_data import RawSplits
from tutelage.data.sets._image_tree import ENDINGS, PART_NAMES
from tutelage.data.sets._labeled_rows import (
    choose_columns,
    classes_of,
    label_sets,
    multi_hot,
    rows_of_parts,
    single_labels,
)
from tutelage.data.square_images import SquareImages
from tutelage.errors import UserError

ADVICE = (
    "give a table .csv, .tsv or .parquet with a column of paths and one of labels, or a folder "
    "that holds one, or one each for train, val and test"
)


class ImageTable(SquareImages):
    """Images listed in a table: a row has the path of an image and its label.

        path,label,split          One table, whose column `split` says train, val or test; without
        a/1.jpg,cat,train         it, parts are cut. Or a folder with train.csv, val.csv, test.csv.
        a/2.jpg,dog,val

    With `multi_label` an item has any number of labels: several in a cell (`cat|indoor`), a list in
    a parquet file, or one column of 0 and 1 a class (`label: [cat, dog]`). The task is then
    `MultiLabelClassification`.

    Missing parts are cut: test 20 %, validation 10 % of what is left for training. Classes are
    sorted by name, numbers by value. Rows without a label are counted in a warning and left out,
    unless `multi_label` is set: then they have none of the classes.

    Args:
        root: the table, or a folder that holds it.
        images: folder that the paths start from; None is that of the table.
        image: column of the paths; None takes the first usual name, such as `path`, and says so.
            Paths may lack their ending, if that is the same for all.
        label: column of the labels, or columns of 0 and 1; None as `image`.
        split: column of the parts; None as `image`, and there may be none.
        multi_label: whether an item has any number of labels.
        separator: between the labels of a cell; None takes what occurs of `|`, `;`, `,`, space.
        size: side of the square images in pixels.
        validation: share of the training part that is held out where there is no such part.
        augment: as in `ImageFolder`.
        mean: per channel, of [0, 1] pixels; the default is ImageNet's.
        std: per channel, of [0, 1] pixels; the default is ImageNet's.

    Raises:
        UserError: If one of them is of another kind or out of range.
    """

    def __init__(
        self,
        root: str,
        images: str | None = None,
        image: str | None = None,
        label: str | list[str] | None = None,
        split: str | None = None,
        multi_label: bool = False,
        separator: str | None = None,
        size: int = 224,
        validation: float = 0.1,
        augment: bool | nn.Module = True,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(size, validation, augment, mean, std)
        check_root(root)
        if isinstance(label, list) and not multi_label:
            raise UserError(
                f"data.label names {len(label)} columns, one a class, which is for items with "
                "several labels; set data.multi_label: true"
            )
        if separator == "":
            raise UserError("data.separator is what lies between two labels, got an empty text")
        self.root = root
        self.images = images
        self.image = image
        self.label = label
        self.split = split
        self.multi_label = multi_label
        self.separator = separator
        self._classes: list[str] | None = None

    @property
    def classes(self) -> list[str]:
        """Names of the classes of the training part, in the order of the labels."""
        if self._classes is None:
            self._read(says_columns=False)
        assert self._classes is not None
        return list(self._classes)

    def raw_splits(self) -> RawSplits:
        """Return the parts that the table has."""
        parts = self._read(says_columns=True)
        paths = {name: [Path(p) for p in part.files.names()] for name, part in parts.items()}
        warn_copies(paths, self.root)
        return parts["train"], parts.get("validation"), parts.get("test")

    def _read(self, says_columns: bool) -> dict[str, FileSet]:
        """Read the tables; the training part comes first, and gives the classes."""
        parts: dict[str, FileSet] = {}
        for name, path in find_tables(self.root).items():
            table = read_table(path)
            columns = choose_columns(table.names, path, self.image, self.label, self.split)
            if says_columns and columns.guessed and name == "train":
                found = ", ".join(f"{key} {column!r}" for key, column in columns.guessed.items())
                print(f"{path}: taken for its columns are {found}", file=sys.stderr)
            rows_by_part = {name: list(range(len(table)))}
            if columns.split is not None and name == "train":
                rows_by_part = rows_of_parts(table, columns.split)
            # Training first: it says which classes there are.
            for part in sorted(rows_by_part, key=lambda part: part != "train"):
                if part in parts or (part != name and part in find_tables(self.root)):
                    raise UserError(
                        f"{path} has rows of the {part} part, which has a table of its own; remove "
                        "one of them"
                    )
                parts[part] = self._part(
                    table, columns.image, columns.label, rows_by_part[part], part
                )
        return parts

    def _part(
        self, table: Table, image: str, label: Sequence[str], rows: Sequence[int], part: str
    ) -> FileSet:
        values = table.column(image, "data.image")
        if self.multi_label:
            sets, known = label_sets(table, label, self.separator)
            chosen = list(rows)
            labels = self._multi_hot(table, [sets[row] for row in chosen], known, part)
        else:
            texts = single_labels(table, label[0])
            chosen = [row for row in rows if texts[row]]
            warn_counts(table.path, {"rows without a label": len(rows) - len(chosen)})
            labels = self._numbers(table, [texts[row] for row in chosen], part)
        paths = self._paths(table, [text_of(values[row]) for row in chosen])
        check_image_files(paths)
        states = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, paths)]
        files = ImageFiles([str(path) for path in paths], states)
        rows_read = torch.arange(len(paths))
        return FileSet(files, rows_read, self.size, labels, rows_read)

    def _numbers(self, table: Table, texts: Sequence[str], part: str) -> Tensor:
        if part == "train":
            self._classes = classes_of(texts, table.path)
        places = {name: place for place, name in enumerate(self._classes or [])}
        self._check_known(set(texts), table, part)
        return torch.tensor([places[text] for text in texts], dtype=torch.int64)

    def _multi_hot(
        self, table: Table, sets: Sequence[set[str]], known: list[str] | None, part: str
    ) -> Tensor:
        if part == "train":
            self._classes = classes_of(sets, table.path) if known is None else known
        self._check_known(set().union(*sets), table, part)
        return multi_hot(sets, self._classes or [])

    def _check_known(self, names: set[str], table: Table, part: str) -> None:
        unknown = sorted(names.difference(self._classes or []))
        if unknown:
            raise UserError(
                f"{table.path}: the {part} part has the class {unknown[0]!r}, which the training "
                "part lacks; every part needs the same classes"
            )

    def _paths(self, table: Table, texts: Sequence[str]) -> list[Path]:
        if "" in texts:
            raise UserError(f"{table.path}: a row with a label has no path of an image; add it")
        folder = table.path.parent if self.images is None else Path(self.images).expanduser()
        paths = [folder / os.path.expanduser(text) for text in texts]
        if paths and not is_file(paths[0]):
            for ending in sorted(ENDINGS):
                if is_file(paths[0].with_name(paths[0].name + ending)):
                    return [path.with_name(path.name + ending) for path in paths]
            raise UserError(
                f"{paths[0]}, which {table.path} lists, is missing; set data.images to the folder "
                "that its paths start from"
            )
        return paths


def find_tables(root: str | Path) -> dict[str, Path]:
    """Return the table of each part, `train` first, which may hold all parts.

    Raises:
        UserError: If there is none, or it is not clear which it is.
    """
    place = Path(root).expanduser()
    if is_file(place):
        return {"train": place}
    if not place.is_dir():
        raise UserError(f"data.root: there is no {place}; {ADVICE}")
    tables = sorted(path for path in place.iterdir() if path.suffix.lower() in TABLE_ENDINGS)
    by_part: dict[str, Path] = {}
    for part, names in PART_NAMES.items():
        found = [path for path in tables if path.stem.lower() in names]
        if len(found) > 1:
            raise UserError(f"{found[0]} and {found[1].name} are both for {part}; remove one")
        if found:
            by_part[part] = found[0]
    if "train" in by_part:
        return by_part
    if len(tables) != 1:
        names_found = ", ".join(path.name for path in tables[:6]) or "none"
        raise UserError(f"{place} holds these tables: {names_found}; {ADVICE}")
    return {"train": tables[0]}

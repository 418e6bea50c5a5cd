"""Images of Hugging Face `datasets`: names on the hub, saved folders, parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.data._tables import sorted_names, text_of
from tutelage.data.file_set import FileSet
from tutelage.data.image_data import RawSplits
from tutelage.data.sets._labeled_rows import choose_columns, multi_hot
from tutelage.data.square_images import SquareImages
from tutelage.data.stored_set import ImageStore, StoredImages, check_some
from tutelage.errors import NotInstalledError, UserError, near_misses, reason

SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk writes
PARTS = {"train": ("train",), "val": ("validation", "valid", "val", "dev"), "test": ("test",)}


class HuggingFaceImages(SquareImages):
    """Images and classes of Hugging Face `datasets` (pip install 'tutelage[datasets]').

    Every image has an address, so that order, resume and workers are as for any other data. The
    library keeps its own copy of what it has loaded, in its cache folder; images stay encoded
    there, and are decoded as they are read. A column of lists of labels gives an item any number
    of them, for `MultiLabelClassification`.

    Missing parts are cut: test 20 %, validation 10 % of what is left for training.

    Args:
        source: a folder that `save_to_disk` wrote, one of parquet files, images or tar files that
            `load_dataset` reads, a parquet file, or a name on the hub, such as `ylecun/mnist`.
        config: name of the configuration, where a source has several.
        image: column of the images; None takes the first usual name, such as `image`.
        label: column of the labels; None takes the first usual name, such as `label`.
        train: split to train on.
        val: split for validation; None takes `validation` or the like if it is there.
        test: split for the test; None takes `test` if it is there.
        size: side of the square images in pixels.
        validation: share of the training part that is held out where there is no such split.
        augment: as in `ImageFolder`.
        mean: per channel, of [0, 1] pixels; the default is ImageNet's.
        std: per channel, of [0, 1] pixels; the default is ImageNet's.

    Raises:
        UserError: If one of them is of another kind or out of range.
    """

    def __init__(
        self,
        source: str,
        config: str | None = None,
        image: str | None = None,
        label: str | None = None,
        train: str = "train",
        val: str | None = None,
        test: str | None = None,
        size: int = 224,
        validation: float = 0.1,
        augment: bool | nn.Module = True,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(size, validation, augment, mean, std)
        self.source = source
        self.config = config
        self.image = image
        self.label = label
        self.train = train
        self.val = val
        self.test = test
        self._classes: list[str] | None = None

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as the source has them, or the sorted values of the label."""
        if self._classes is None:
            self.raw_splits()
        assert self._classes is not None
        return list(self._classes)

    def raw_splits(self) -> RawSplits:
        """Return the splits."""
        loaded = load_source(self.source, self.config)
        names = self._split_names(list(loaded))
        train = self._part(loaded[names["train"]], names["train"])
        validation, test = (
            self._part(loaded[names[part]], names[part]) if part in names else None
            for part in ("val", "test")
        )
        return train, validation, test

    def _split_names(self, known: Sequence[str]) -> dict[str, str]:
        names: dict[str, str] = {}
        for part, given in (("train", self.train), ("val", self.val), ("test", self.test)):
            if given is not None and given not in known:
                raise UserError(
                    f"{self.source} has no split {given!r}, which data.{part} names"
                    f"{near_misses(given, known)}"
                )
            found = [name for name in PARTS[part] if name in known] if given is None else [given]
            if found:
                names[part] = found[0]
        if len(set(names.values())) < len(names):
            raise UserError(
                f"data.train, data.val and data.test name one split of {self.source} twice: {names}"
            )
        return names

    def _part(self, rows: Any, split: str) -> FileSet:
        import datasets

        where = f"{self.source}, split {split}"
        columns = choose_columns(rows.column_names, where, self.image, self.label, "")
        for key, name in (("image", columns.image), ("label", columns.label[0])):
            if name not in rows.column_names:
                raise UserError(
                    f"{where} has no column {name!r}, which data.{key} names"
                    f"{near_misses(name, rows.column_names)}"
                )
        kind = rows.features[columns.image]
        if not isinstance(kind, datasets.Image) and not _holds_files(kind):
            raise UserError(
                f"the column {columns.image!r} of {where} is {kind} and no images; set data.image "
                "to a column that is"
            )
        labels = self._labels(rows, columns.label[0], where)
        encoded = rows.cast_column(columns.image, datasets.Image(decode=False))
        store = RowStore(encoded.select_columns([columns.image]), columns.image, where)
        check_some(store, range(len(rows)))
        numbers = torch.arange(len(rows))
        return FileSet(StoredImages(store), numbers, self.size, labels, numbers)

    def _labels(self, rows: Any, column: str, where: str) -> Tensor:
        values = list(rows[column])
        feature = rows.features[column]
        inner = getattr(feature, "feature", feature)
        names = list(getattr(inner, "names", None) or [])
        if names:
            if any(value is None or value == -1 for value in values):
                raise UserError(f"{where} has rows without a label in {column!r}; filter them out")
            texts = [_named(value, names) for value in values]
        else:
            texts = [
                [text_of(entry) for entry in value] if isinstance(value, list) else text_of(value)
                for value in values
            ]
        if self._classes is None:
            flat = {t for text in texts for t in (text if isinstance(text, list) else [text])}
            self._classes = names or sorted_names(flat)
        places = {name: place for place, name in enumerate(self._classes)}
        flat_texts = (t for text in texts for t in (text if isinstance(text, list) else [text]))
        unknown = next((text for text in flat_texts if text not in places), None)
        if unknown is not None:
            raise UserError(
                f"{where} has the class {unknown!r}, which the training split lacks; every split "
                "needs the same classes"
            )
        if texts and isinstance(texts[0], list):
            return multi_hot([set(text) for text in texts], self._classes)
        return torch.tensor([places[str(text)] for text in texts], dtype=torch.int64)


class RowStore(ImageStore):
    """The images of one column of a split.

    Args:
        rows: a `datasets.Dataset` that does not decode its images.
        column: of the images.
        where: names the split, for messages.
    """

    def __init__(self, rows: Any, column: str, where: str) -> None:
        self.rows = rows
        self.column = column
        self.where = where

    def content(self, number: int) -> bytes:
        """Return the content of an image file; some data sets store paths only."""
        stored = self.rows[number][self.column]
        if stored is None:
            raise UserError(f"{self.name(number)} has no image; filter such rows out")
        if stored["bytes"] is not None:
            return bytes(stored["bytes"])
        try:
            return Path(stored["path"]).read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.name(number)} is the file {stored['path']}, which cannot be read "
                f"({error.strerror}); load the data set again"
            ) from error

    def name(self, number: int) -> str:
        """Return what an image is called in messages."""
        return f"{self.where}, row {number}"


def load_source(source: str, config: str | None = None) -> dict[str, Any]:
    """Return the splits of a source by name.

    Args:
        source: as in `HuggingFaceImages`.
        config: as there.

    Raises:
        UserError: If `datasets` is not installed, or the source cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise NotInstalledError(f"the data {source}", "datasets") from error
    folder = Path(source).expanduser()
    try:
        if any((folder / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(str(folder))
        else:
            place = str(folder) if folder.is_dir() else source
            if folder.is_file():
                loaded = datasets.load_dataset("parquet", data_files=str(folder))
            else:
                loaded = datasets.load_dataset(place, name=config)
    except Exception as error:  # the network, the hub and damaged files raise nearly anything
        raise UserError(
            f"{source} cannot be loaded by datasets ({reason(error)[:200]}); check the name, or "
            "without a network give a folder of parquet files, or one that save_to_disk wrote"
        ) from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _holds_files(kind: Any) -> bool:
    """Return whether a column holds contents of files, as tables without a record of images do."""
    if isinstance(kind, dict):
        kind = kind.get("bytes")
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, (list, tuple)):
        return [names[number] for number in value]
    return names[value]

"""Images in tar shards as webdataset writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from tutelage.data._files import require_folder
from tutelage.data._settings import check_root
from tutelage.data._tables import sorted_names
from tutelage.data._text import warn_counts
from tutelage.data.file_set import FileSet
from tutelage.data.image_data import RawSplits
from tutelage.data.sets._tar_index import TarStore, read_shards
from tutelage.data.square_images import SquareImages
from tutelage.data.stored_set import StoredImages, check_some
from tutelage.errors import UserError

ADVICE = "give the folder of the .tar files, and set data.root"


class TarImages(SquareImages):
    """Images in tar files in webdataset's form: `000001.jpg` beside `000001.cls`.

    The label is the text of `.cls`, `.label` or `.txt`, a number or a name, or an entry of `.json`.

    The shards are files on a disk, and not streamed: their headers are read at the start, and then
    every image is one read at a known place. So the order of an epoch is a function of the seed, it
    is spread over ranks and loading processes as for any other data, and a run that was interrupted
    goes on with the very images that come next. Shards behind a URL have no such places: download
    them first. Compressed tar files are refused for the same reason.

    Missing parts are cut: test 20 %, validation 10 % of what is left for training. Samples without
    an image are counted in a warning.

    Args:
        root: folder of the shards.
        train: pattern of the shards that are trained on, such as `train-*.tar`.
        val: pattern of those for validation; None cuts it from the training part.
        test: pattern of those for the test; None cuts it from the training part.
        names: of the classes where labels are numbers, in their order; None takes the labels that
            occur, sorted.
        label_key: entry of `.json` files that is the label.
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
        train: str = "train*.tar",
        val: str | None = None,
        test: str | None = None,
        names: list[str] | None = None,
        label_key: str = "label",
        size: int = 224,
        validation: float = 0.1,
        augment: bool | nn.Module = True,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__(size, validation, augment, mean, std)
        check_root(root)
        if "://" in str(root):
            raise UserError(
                f"data.root is {root}, but images are read from shards in any order, for which "
                "they have to be on a disk; download them first"
            )
        self.root = root
        self.train = train
        self.val = val
        self.test = test
        self.names = names
        self.label_key = label_key
        self._classes: list[str] | None = None

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of the labels."""
        if self.names is not None:
            return list(self.names)
        if self._classes is None:
            self._part("train", self.train)
        assert self._classes is not None
        return list(self._classes)

    def raw_splits(self) -> RawSplits:
        """Return the parts that have shards of their own."""
        train = self._part("train", self.train)
        validation = None if self.val is None else self._part("val", self.val)
        test = None if self.test is None else self._part("test", self.test)
        return train, validation, test

    def _part(self, part: str, pattern: str) -> FileSet:
        root = require_folder(self.root, "the folder of tar files", ADVICE)
        paths = self._shards(root, part, pattern)
        shards = read_shards(paths, self.label_key)
        where = root / pattern
        warn_counts(where, {"samples without an image": sum(shard.skipped for shard in shards)})
        texts = [label for shard in shards for label in shard.labels]
        if not texts:
            raise UserError(f"{where} holds no image; {ADVICE}")
        if part == "train" and self.names is None:
            self._classes = sorted_names(set(texts))
        places = self._places()
        unknown = next((text for text in texts if text not in places), None)
        if unknown is not None:
            raise UserError(
                f"{where} has the label {unknown!r}, which is none of {len(self.classes)} classes; "
                "every part needs the classes of the training part, or of data.names"
            )
        store = TarStore(paths, shards)
        check_some(store, range(len(texts)))
        labels = torch.tensor([places[text] for text in texts], dtype=torch.int64)
        numbers = torch.arange(len(texts))
        return FileSet(StoredImages(store), numbers, self.size, labels, numbers)

    def _places(self) -> dict[str, int]:
        """Return the number of every label; where classes have names, numbers mean these, too."""
        names: Sequence[str] = self.names if self.names is not None else self._classes or []
        places = {name: place for place, name in enumerate(names)}
        if self.names is not None:
            places = {str(place): place for place in range(len(names))} | places
        return places

    def _shards(self, root: Path, part: str, pattern: str) -> list[Path]:
        paths = sorted(root.glob(pattern))
        if not paths:
            known = sorted(os.listdir(root))[:6]
            raise UserError(
                f"{root} holds no file {pattern}, which data.{part} names; it holds "
                f"{', '.join(known) or 'nothing'}"
            )
        return paths

"""Which files and folders below a root are images of a class, and which are passed over."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.data._text import warn_counts
from tutelage.errors import UserError

# What torchvision reads, and GIF.
ENDINGS = {
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Words in names of parts that are not in `PART_NAMES`, such as train_set, seg_test and test2017.
PART_WORDS = {name for names in PART_NAMES.values() for name in names} | {"eval", "holdout"}
PART_STEMS = ("train", "test", "valid")  # also in trainset, TestImages and mytrain
# What systems leave behind, besides names that begin with a dot.
CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
MAX_KINDS = 6  # kinds of passed-over files that the warning names


ImageFile = tuple[str, int, int]
"""(path, size in bytes, time of the last change in nanoseconds); -1 for a file that is missing."""


@dataclass
class ImageTree:
    """A root with one folder a class, or with one folder a part.

    Attributes:
        root: the folder.
        parts: folder of each part by its name in `PART_NAMES`; only `train`, which is the root,
            where there are no parts.
        passed_over: what is not read -> how often.
    """

    root: Path
    parts: dict[str, Path]
    passed_over: Counter[str] = field(default_factory=Counter)

    @property
    def classes(self) -> list[str]:
        """Names of the class folders of the training part, sorted."""
        return self.class_names(self.parts["train"])

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the class folders of a part, sorted."""
        return [path.name for path in _folders(folder)]

    def images(self, folder: Path) -> list[ImageFile]:
        """Return the images at any depth below a class folder, sorted; links are followed."""
        found: list[ImageFile] = []
        self._walk(str(folder), found, ())
        return found

    def warn(self) -> None:
        """Say in one warning what is passed over, beside and in the class folders.

        Beside parts only what looks like images counts, since recipes and runs may lie there.
        """
        counts = self.passed_over.copy()
        for folder in {self.root, *self.parts.values()}:
            files = [entry.name for entry in _entries(folder) if not entry.is_dir()]
            if folder not in self.parts.values():
                files = [name for name in files if _ending(name) in ENDINGS]
            counts["files outside of class folders"] += len(files)
        if self.parts["train"] != self.root:
            others = [path.name for path in _folders(self.root) if self._looks_like_part(path)]
            counts[f"folders ({_listed(others)})"] = len(others)
        else:
            self._warn_of_parts()
        warn_counts(f"not read of the image folder {self.root}", _shortened(counts))

    def _warn_of_parts(self) -> None:
        """Say if what is in the class folders looks like the classes."""
        folders = _folders(self.root)
        common = _common_names(folders)
        if len(common) > 1:
            warnings.warn(
                f"{self.root}: its folders {_listed([folder.name for folder in folders])} are "
                f"taken for classes, but all hold folders of the same names ({_listed(common)}); "
                "if these are the classes, name the former train, val and test",
                stacklevel=3,
            )

    def _looks_like_part(self, folder: Path) -> bool:
        """Return whether this is no part, but holds images or folders named as classes."""
        if folder in self.parts.values():
            return False
        has_classes = not set(self.class_names(folder)).isdisjoint(self.classes)
        return has_classes or any(_ending(entry.name) in ENDINGS for entry in _entries(folder))

    def _walk(
        self, folder: str, found: list[ImageFile], above: tuple[tuple[int, int], ...]
    ) -> None:
        """Add the images below a folder, in the order of their names, folders among them."""
        own = os.stat(folder)
        key = (own.st_dev, own.st_ino)
        if key in above:  # a link to a folder that holds it
            self.passed_over["links in a circle"] += 1
            return
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=_name)
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                self.passed_over["hidden images"] += _is_hidden_image(name)
            elif entry.is_dir():
                if name not in CLUTTER:
                    self._walk(entry.path, found, (*above, key))
            elif name[name.rfind(".") :].lower() in ENDINGS:  # perhaps a million: no further calls
                try:
                    status = entry.stat()
                except OSError:  # it is named when files are checked
                    found.append((entry.path, -1, -1))
                else:
                    found.append((entry.path, status.st_size, status.st_mtime_ns))
            elif name not in CLUTTER:
                self.passed_over[f"files {_ending(name) or 'without ending'}"] += 1


def find_tree(root: Path) -> ImageTree:
    """Return how a root is laid out.

    Folders are parts if one is named for training and holds folders. A folder `train` with images
    beside folders of other names is a class.

    Raises:
        UserError: If two folders are the same part, or there are parts, but none for training.
    """
    parts: dict[str, Path] = {}
    others: list[Path] = []
    for folder in _folders(root):
        part = _part_of(folder.name)
        if part is None:
            others.append(folder)
        elif part in parts:
            raise UserError(
                f"{root} has two folders for the {part} part, {parts[part].name} and "
                f"{folder.name}; join them, or move one away"
            )
        else:
            parts[part] = folder
    if parts and not others and "train" not in parts:
        raise UserError(
            f"{root} has the parts {_listed([path.name for path in parts.values()])}, but none "
            "for training; name it train"
        )
    if "train" in parts and (_folders(parts["train"]) or not others):
        return ImageTree(root, parts)
    _check_no_parts(root)
    return ImageTree(root, {"train": root})


def _check_no_parts(root: Path) -> None:
    """Refuse class folders that look like parts."""
    named = [folder for folder in _folders(root) if _is_like_part(folder.name.lower())]
    common = _common_names(named)
    if common:
        raise UserError(
            f"{root} holds the folders {_listed([folder.name for folder in named])}, in which "
            f"there are folders of the same names ({_listed(common)}), so that they look like "
            "parts; name them train, val and test, or link to them under these names"
        )


def _is_like_part(name: str) -> bool:
    has_stem = name.startswith(PART_STEMS) or name.endswith(PART_STEMS)
    return has_stem or not PART_WORDS.isdisjoint(re.split("[^a-z]+", name))


def _common_names(folders: Sequence[Path]) -> list[str]:
    """Return the names of folders that are in all of these, sorted; none if they are not two."""
    if len(folders) < 2:
        return []
    common = {path.name for path in _folders(folders[0])}
    for folder in folders[1:]:
        if not common:  # as in nearly every data set: the others need not be listed
            break
        common &= {path.name for path in _folders(folder)}
    return sorted(common)


def _part_of(name: str) -> str | None:
    for part, names in PART_NAMES.items():
        if name.lower() in names:
            return part
    return None


def _is_hidden_image(name: str) -> bool:
    """Return whether a name that begins with a dot is an image's; macOS's `._` files are none."""
    return not name.startswith("._") and _ending(name) in ENDINGS


def _ending(name: str) -> str:
    """Return the ending of a file's name in small letters, such as `.jpg`.

    >>> _ending("a.b.JPG"), _ending("README"), _ending("dot.")
    ('.jpg', '', '')
    """
    ending = os.path.splitext(name)[1].lower()
    return "" if ending == "." else ending


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _folders(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder and neither hidden nor clutter, sorted by name."""
    with os.scandir(folder) as listing:
        entries = [e for e in listing if not e.name.startswith(".") and e.name not in CLUTTER]
    return sorted(entries, key=_name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_KINDS]) + (", …" if len(names) > MAX_KINDS else "")


def _shortened(counts: Counter[str]) -> dict[str, int]:
    """Return the most frequent kinds, and the sum of the others."""
    shown = dict(counts.most_common(MAX_KINDS))
    rest = counts.total() - sum(shown.values())
    return {**shown, "others": rest}

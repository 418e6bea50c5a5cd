"""Which files and folders below a root are images of a class, and which are passed over."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from tutelage.data._text import warn_counts
from tutelage.data.sets._open_folder import ImageColumns, identity, opened
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

_name = attrgetter("name")


# How nearly all names end; the others take further calls.
USUAL = {ending for low in ENDINGS if len(low) == 4 for ending in (low, low.upper())}


@dataclass
class ImageTree:
    """A root with one folder a class, or with one folder a part.

    Attributes:
        root: the folder.
        parts: folder of each part by its name in `PART_NAMES`; only `train`, which is the root,
            where there are no parts.
        passed_over: what is not read -> how often.
        folders: names of the folders in each folder that was listed, sorted.
    """

    root: Path
    parts: dict[str, Path]
    passed_over: Counter[str] = field(default_factory=Counter)
    folders: dict[Path, list[str]] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Names of the class folders of the training part, sorted."""
        return self.class_names(self.parts["train"])

    def class_names(self, folder: Path) -> list[str]:
        """Return the names of the class folders of a part, sorted."""
        if folder not in self.folders:
            self.folders[folder] = _folder_names(folder)
        return self.folders[folder]

    def add_images(self, folder: str, found: ImageColumns) -> None:
        """Add the images at any depth below a class folder, sorted; links are followed."""
        self._walk(folder, found, ())

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
            names = self.class_names(self.root)
            others = [name for name in names if self._looks_like_part(self.root / name)]
            counts[f"folders ({_listed(others)})"] = len(others)
        else:
            self._warn_of_parts()
        warn_counts(f"not read of the image folder {self.root}", _shortened(counts))

    def _warn_of_parts(self) -> None:
        """Say if what is in the class folders looks like the classes."""
        names = self.class_names(self.root)
        common = _common_names(self.root, names)
        if len(common) > 1:
            warnings.warn(
                f"{self.root}: its folders {_listed(names)} are "
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

    def _walk(self, folder: str, found: ImageColumns, above: tuple[tuple[int, int], ...]) -> None:
        """Add the images below a folder, in the order of their names, folders among them.

        Args:
            folder: its path.
            found: to add to.
            above: device and number of each folder on the way from the class folder to this one.
        """
        with opened(folder) as place, os.scandir(place) as listing:
            # There may be a million images, so nothing is looked up for an ordinary one.
            add_path, add_size, add_time = (
                found.paths.append,
                found.sizes.append,
                found.times.append,
            )
            usual = USUAL
            for entry in sorted(listing, key=_name):
                name = entry.name
                path = f"{folder}{os.sep}{name}"
                if name[0] == ".":
                    self.passed_over["hidden images"] += _is_hidden_image(name)
                elif entry.is_dir():
                    if name not in CLUTTER:
                        self._descend(folder, path, found, above)
                elif name[-4:] in usual or _ending(name) in ENDINGS:
                    add_path(path)
                    try:
                        status = entry.stat()
                    except OSError:  # it is named when files are checked
                        add_size(-1)
                        add_time(-1)
                    else:
                        add_size(status.st_size)
                        add_time(status.st_mtime_ns)
                elif name not in CLUTTER:
                    self.passed_over[f"files {_ending(name) or 'without ending'}"] += 1

    def _descend(
        self, folder: str, inner: str, found: ImageColumns, above: tuple[tuple[int, int], ...]
    ) -> None:
        """Walk a folder in a folder, unless it is a link to one that holds it."""
        if not above:
            above = (identity(folder),)
        own = identity(inner)
        if own in above:
            self.passed_over["links in a circle"] += 1
        else:
            self._walk(inner, found, (*above, own))


def find_tree(root: Path) -> ImageTree:
    """Return how a root is laid out.

    Folders are parts if one is named for training and holds folders. A folder `train` with images
    beside folders of other names is a class.

    Raises:
        UserError: If two folders are the same part, or there are parts, but none for training.
    """
    parts: dict[str, Path] = {}
    others: list[str] = []
    names = _folder_names(root)
    for name in names:
        part = _part_of(name)
        if part is None:
            others.append(name)
        elif part in parts:
            raise UserError(
                f"{root} has two folders for the {part} part, {parts[part].name} and "
                f"{name}; join them, or move one away"
            )
        else:
            parts[part] = root / name
    if parts and not others and "train" not in parts:
        raise UserError(
            f"{root} has the parts {_listed([path.name for path in parts.values()])}, but none "
            "for training; name it train"
        )
    listed = {root: names}
    if "train" in parts:
        listed[parts["train"]] = _folder_names(parts["train"])
        if listed[parts["train"]] or not others:
            return ImageTree(root, parts, folders=listed)
    _check_no_parts(root, names)
    return ImageTree(root, {"train": root}, folders=listed)


def _check_no_parts(root: Path, names: Sequence[str]) -> None:
    """Refuse class folders that look like parts."""
    named = [name for name in names if _is_like_part(name.lower())]
    common = _common_names(root, named)
    if common:
        raise UserError(
            f"{root} holds the folders {_listed(named)}, in which "
            f"there are folders of the same names ({_listed(common)}), so that they look like "
            "parts; name them train, val and test, or link to them under these names"
        )


def _is_like_part(name: str) -> bool:
    has_stem = name.startswith(PART_STEMS) or name.endswith(PART_STEMS)
    return has_stem or not PART_WORDS.isdisjoint(re.split("[^a-z]+", name))


def _common_names(root: Path, names: Sequence[str]) -> list[str]:
    """Return the names of folders that are in all of these, sorted; none if they are not two.

    Args:
        root: where the folders are.
        names: of the folders.
    """
    if len(names) < 2:
        return []
    common = set(_folder_names(root / names[0]))
    for name in names[1:]:
        if not common:  # as in nearly every data set: the others need not be listed
            break
        common &= set(_folder_names(root / name))
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


def _folder_names(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that are neither hidden nor clutter, sorted."""
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


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

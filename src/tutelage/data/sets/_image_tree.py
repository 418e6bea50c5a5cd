"""Which files and folders below a root are images of a class, and which are passed over."""

from __future__ import annotations

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
# What systems leave behind, besides names that begin with a dot.
CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}
MAX_KINDS = 6  # kinds of passed-over files that the warning names


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

    def images(self, folder: Path) -> list[Path]:
        """Return the images at any depth below a class folder, sorted; links are followed."""
        found: list[Path] = []
        self._walk(folder, found, ())
        return sorted(found)

    def warn(self) -> None:
        """Say in one warning what is passed over, beside and in the class folders."""
        counts = self.passed_over.copy()
        beside = {self.root, *self.parts.values()}
        for folder in beside:
            files = [path for path in _visible(folder) if not path.is_dir()]
            counts["files outside of class folders"] += len(files)
        if self.parts["train"] != self.root:
            others = [path for path in _folders(self.root) if path not in self.parts.values()]
            counts[f"folders ({_listed([path.name for path in others])})"] = len(others)
        warn_counts(f"not read of the image folder {self.root}", _shortened(counts))

    def _walk(self, folder: Path, found: list[Path], above: tuple[tuple[int, int], ...]) -> None:
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        if key in above:  # a link to a folder that holds it
            self.passed_over["links in a circle"] += 1
            return
        for path in _visible(folder):
            if path.is_dir():
                self._walk(path, found, (*above, key))
            elif path.suffix.lower() in ENDINGS:
                found.append(path)
            else:
                self.passed_over[f"files {path.suffix.lower() or 'without ending'}"] += 1


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
    return ImageTree(root, {"train": root})


def _part_of(name: str) -> str | None:
    for part, names in PART_NAMES.items():
        if name.lower() in names:
            return part
    return None


def _visible(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in paths if path.name not in CLUTTER)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_KINDS]) + (", …" if len(names) > MAX_KINDS else "")


def _shortened(counts: Counter[str]) -> dict[str, int]:
    """Return the most frequent kinds, and the sum of the others."""
    shown = dict(counts.most_common(MAX_KINDS))
    rest = counts.total() - sum(shown.values())
    return {**shown, "others": rest}

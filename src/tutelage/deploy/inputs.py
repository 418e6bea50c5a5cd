"""The image files that a user names: files, folders, and what is left out of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from tutelage.data.sets._image_tree import ENDINGS
from tutelage.errors import UserError
from tutelage.io import expanded

SUFFIX = "-predicted"  # of the names of our own drawings
MARK = ("Software", "tutelage predict")  # in our own drawings, as text of the PNG file


def image_files(inputs: Sequence[str]) -> list[str]:
    """Return files for inputs, each once: of a folder its images at any depth, sorted.

    Drawings that `tutelage predict` made itself are left out, so that `*.png` can be given again.
    What is left out is counted on standard error.

    Raises:
        UserError: If a file does not exist, or nothing is left.
    """
    found: list[str] = []
    num_others = 0
    for name in inputs:
        if not name:  # which would be the working folder
            raise UserError("an input is empty; give image files or folders of images")
        path = expanded(name)
        if path.is_dir():
            files = sorted(entry for entry in path.rglob("*") if entry.is_file())
            images = [str(entry) for entry in files if entry.suffix.lower() in ENDINGS]
            num_others += len(files) - len(images)
            found += images
        elif os.path.lexists(path):
            found.append(name)
        else:
            raise UserError(
                f"there is no input {name[:200]}; give image files or folders of images"
            )
    sources = [name for name in dict.fromkeys(found) if not is_own_drawing(name)]
    num_drawings = len(set(found)) - len(sources)
    for count, what in (
        (num_drawings, "drawings of its own"),
        (num_others, "files that are no images"),
    ):
        if count:
            print(f"left out: {count} {what}", file=sys.stderr)
    if not sources:
        raise UserError(
            f"there is no image in {list(inputs)[:5]}; give image files or folders of images"
        )
    return sources


def is_own_drawing(name: str) -> bool:
    """Return whether a file is a drawing that `tutelage predict` made."""
    from PIL import Image

    path = expanded(name)
    if not path.stem.endswith(SUFFIX) or path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path) as file:
            return bool(file.info.get(MARK[0]) == MARK[1])
    except Exception:  # a damaged file is named when it is read
        return False


def drawing_mark() -> Any:
    """Return the text by which a drawing is recognized, as Pillow writes it."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text(*MARK)
    return mark

"""Find out how a folder is laid out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.data._tables import column_names
from tutelage.errors import UserError, near_misses
from tutelage.io import expanded
from tutelage.recipes.starter import boxes, images, masks, rankings
from tutelage.recipes.starter.found import Found


@dataclass(frozen=True)
class Layout:
    """A layout that `tutelage init` knows.

    Attributes:
        name: for `--layout`.
        shape: what such a folder holds, in words.
        matches: whether a folder or file is laid out so, by names alone.
        read: reads and checks it.
    """

    name: str
    shape: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], Found]


LAYOUTS = (
    Layout(
        "image-folder",
        "<class>/*.jpg or train/<class>/*.jpg, two classes or more",
        images.is_tree,
        images.read_tree,
    ),
    Layout(
        "table",
        "a .csv, .tsv or .parquet with a column of paths and one of labels",
        images.is_table,
        images.read_listed,
    ),
    Layout(
        "parquet",
        "*.parquet that hold the images, or a folder that datasets has saved",
        images.is_parquet,
        images.read_stored,
    ),
    Layout(
        "tar",
        "train*.tar with 1.jpg and 1.cls for every image",
        images.is_tar,
        images.read_tar,
    ),
    Layout(
        "coco",
        "annotations/instances_<part>.json with <part>/*.jpg",
        boxes.is_coco,
        boxes.read_coco,
    ),
    Layout(
        "voc-boxes",
        "JPEGImages with Annotations/*.xml",
        boxes.is_voc,
        boxes.read_voc,
    ),
    Layout(
        "voc-masks",
        "JPEGImages with SegmentationClass/*.png",
        masks.is_voc,
        masks.read_voc,
    ),
    Layout(
        "masks",
        "train/*.jpg with trainannot/*.png, or images/ with masks/",
        masks.is_folders,
        masks.read_folders,
    ),
    Layout(
        "beir",
        "corpus.jsonl with queries.jsonl and qrels/*.tsv",
        rankings.is_beir,
        rankings.read_beir,
    ),
    Layout(
        "interactions",
        "*.inter, u.data, ratings.dat, ratings.csv, users.dat, or a table of user and item",
        rankings.is_interactions,
        rankings.read_interactions,
    ),
)


def look_at(folder: str | Path, layout: str | None = None) -> Found:
    """Return what a folder holds; all files that the recipes will read are checked.

    Args:
        folder: a folder, or a single file of a table.
        layout: name of the layout, where several fit; None finds it out.

    Raises:
        UserError: If there is no such folder, no layout or more than one fits, or a file is broken.
    """
    # Not resolved: a link may be how the user wants to call it.
    if not str(folder):
        raise UserError("the folder is empty; give the one that holds your data, or . for this one")
    root = Path(os.path.abspath(expanded(folder)))
    if not root.exists():
        raise UserError(f"there is no folder {folder}; give the one that holds your data")
    by_name = {known.name: known for known in LAYOUTS}
    if layout is not None:
        if layout not in by_name:
            raise UserError(f"there is no layout {layout!r}{near_misses(layout, by_name)}")
        return by_name[layout].read(root)
    fitting = [known for known in LAYOUTS if known.matches(root)]
    # Class folders are what is left when no other layout says what the folders are.
    if len(fitting) > 1:
        fitting = [known for known in fitting if known.name != "image-folder"]
    if not fitting:
        # A damaged table may be why nothing fits, or columns that are called otherwise.
        tables = [f"{path.name} {column_names(path)[:8]}" for path in images.tables_in(root)]
        if not tables and root.is_dir() and (classes := images.class_folders(root)):
            raise UserError(
                f"the only folder with images in {folder} is {classes[0].name}; classification "
                "needs a folder of images for each of two classes or more, other tasks masks or "
                "boxes beside the images"
            )
        columns = ""
        if tables:
            columns = (
                f"; of the columns of {', '.join(tables)} rename two to path and label, or to user "
                "and item, or name them in a recipe as data.image, data.label, data.user, data.item"
            )
        shapes = "; ".join(f"{known.shape} ({known.name})" for known in LAYOUTS)
        raise UserError(f"{folder} is laid out in no way that is known: {shapes}{columns}")
    if len(fitting) > 1:
        choices = " or ".join(f"--layout {known.name} ({known.shape})" for known in fitting)
        raise UserError(f"{folder} can be read in {len(fitting)} ways; choose {choices}")
    return fitting[0].read(root)

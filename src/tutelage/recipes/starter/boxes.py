"""Folders of images with boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from tutelage.data import BoxSet, Coco
from tutelage.data.sets._image_tree import PART_NAMES
from tutelage.data.sets.coco import PREFIX
from tutelage.errors import UserError
from tutelage.recipes.starter.found import Found, listed, median_sides, part_counts

VOC_FOLDERS = ("", "VOC2012", "VOC2007", "VOCdevkit/VOC2012", "VOCdevkit/VOC2007")


def is_coco(root: Path) -> bool:
    """Return whether a folder has annotations in COCO's format."""
    return bool(_coco_parts(root))


def read_coco(root: Path) -> Found:
    """Read boxes in COCO's format."""
    names = _coco_parts(root)
    if not names:
        raise UserError(f"{root / 'annotations'} holds no {PREFIX}<part>.json")
    parts = sorted_parts(names, f"{root / 'annotations'}/{PREFIX}")
    train, validation, test = parts
    if test is None and validation is not None:  # as results on COCO and VOC are reported
        validation, test = None, validation
    data = Coco(str(root), train=train, val=validation, test=test, validation=0.1)
    counts, splits = part_counts(data)
    boxes = splits["train"]
    assert isinstance(boxes, BoxSet)
    chosen = [boxes.images[position] for position in boxes.ids.tolist()]
    numbers = Counter(label for image in chosen for label in image.labels.tolist())
    by_class = [f"{numbers[label]} {name}" for label, name in enumerate(data.classes) if label]
    cut = " (null cuts a share of the training part)" if validation is None else ""
    unused = [name for name in names if name not in (train, validation, test)]
    return Found(
        root=root,
        layout="boxes in COCO's format",
        task="detection",
        data="Coco",
        arguments={
            "root": str(root),
            "train": train,
            "val": validation,
            "test": test,
            "validation": 0.1,
        },
        remarks={
            "root": f"annotations/{PREFIX}<part>.json describes the images in <part>/",
            "train": "names of the parts: the one that is trained on,",
            "val": f"the one by which the best epoch is chosen{cut},",
            "test": "and the one that results are reported on",
            "validation": "the share that is cut where a part is null",
        },
        classes=data.classes[1:],
        counts=counts,
        sides=median_sides([image.path for image in chosen]),
        facts=[
            f"boxes for training: {listed(by_class)}",
            *([f"parts that are not used: {listed(unused)}"] if unused else []),
        ],
    )


def is_voc(root: Path) -> bool:
    """Return whether a folder has VOC's boxes in XML."""
    folder = voc_folder(root)
    return folder is not None and _has_file(folder / "Annotations", ".xml")


def read_voc(root: Path) -> Found:
    """Say how VOC's boxes become COCO's format.

    Raises:
        UserError: Always: the copy that is needed is made by another command.
    """
    folder = voc_folder(root) or root
    name = quote(f"{root.name}-coco")
    raise UserError(
        f"{folder} holds boxes in VOC's XML, which are trained on in COCO's format: run `tutelage "
        f"prepare voc --source {quote(str(folder))} --out {name}`, then `tutelage init {name}`"
    )


def voc_folder(root: Path) -> Path | None:
    """Return the folder that holds JPEGImages, which is the root or below it."""
    for name in VOC_FOLDERS:
        if (root / name / "JPEGImages").is_dir():
            return root / name
    return None


def sorted_parts(names: Sequence[str], where: str) -> tuple[str, str | None, str | None]:
    """Return which of these are the parts for training, validation and test.

    >>> sorted_parts(["val2017", "train2017"], "x")
    ('train2017', 'val2017', None)

    Raises:
        UserError: If several could be the one for training.
    """
    found: dict[str, str | None] = {}
    for part, usual in PART_NAMES.items():
        fitting = [name for name in names if name.lower().startswith(usual)]
        exact = [name for name in fitting if name.lower() in usual]
        found[part] = next(iter(exact or sorted(fitting)), None)
    if len(names) == 1:
        return names[0], None, None
    train = found["train"]
    if train is None:
        raise UserError(
            f"{where}* has the parts {listed(sorted(names))}, none of which begins with train; "
            "name the one for training so"
        )
    return train, found["validation"], found["test"]


def _coco_parts(root: Path) -> list[str]:
    folder = root / "annotations"
    return sorted(path.stem.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*.json"))


def _has_file(folder: Path, ending: str) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == ending for path in folder.iterdir())

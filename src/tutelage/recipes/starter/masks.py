"""Folders of images with masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tutelage.data import DenseSet, MaskArray, MaskFolder, MaskSet, VOCSegmentation
from tutelage.data._files import image_size
from tutelage.data._text import is_file, read_lines
from tutelage.data.masks import VOID, read_numbers
from tutelage.data.sets import camvid
from tutelage.data.sets._image_tree import ENDINGS
from tutelage.data.sets.mask_folder import MASK_ENDINGS, PART, mask_pairs
from tutelage.data.sets.voc import CLASSES, LISTS
from tutelage.errors import UserError
from tutelage.recipes.starter.boxes import sorted_parts, voc_folder
from tutelage.recipes.starter.found import Found, median_sides, part_counts

MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "annot", "gt", "segmentation")
MAX_READ = 2000  # masks whose numbers are looked at
MAX_CLASSES = 200
MAX_SMALL = 256  # shorter side of images that the small U-Net is chosen for
NAME_FILES = ("classes.txt", "names.txt", "labels.txt", "class_names.txt")
MAX_BYTES = 2**29  # of images that are kept in memory


def is_voc(root: Path) -> bool:
    """Return whether a folder has VOC's masks."""
    folder = voc_folder(root)
    return folder is not None and (folder / "SegmentationClass").is_dir()


def read_voc(root: Path) -> Found:
    """Read masks in VOC's layout."""
    folder = voc_folder(root)
    if folder is None:
        raise UserError(f"{root} holds no JPEGImages")
    lists = sorted(path.stem for path in (folder / LISTS).glob("*.txt"))
    if not lists:
        raise UserError(
            f"{folder / LISTS} holds no lists; write train.txt there with the name of one image a "
            "line, without ending"
        )
    train, validation, test = sorted_parts(lists, str(folder / LISTS / ""))
    if test is None and validation is not None:
        validation, test = None, validation
    files = sorted((folder / "SegmentationClass").glob("*.png"))
    numbers = _numbers_in(files)
    is_voc_itself = set(numbers) <= {*range(len(CLASSES)), VOID} and len(numbers) > 15
    names, values = (CLASSES, None) if is_voc_itself else _classes(folder, numbers)
    arguments: dict[str, Any] = {
        "root": str(folder),
        "train": train,
        "val": validation,
        "test": test,
        "validation": 0.1,
    }
    remarks = {
        "root": "JPEGImages, SegmentationClass, and lists of the parts in ImageSets/Segmentation",
        "train": "names of the lists: of the images that are trained on,",
        "val": "of those that choose the best epoch (null cuts a share of training),",
        "test": "and of those that results are reported on",
        "validation": "the share that is cut where a part is null",
    }
    _add_classes(arguments, remarks, names, values)
    sides = median_sides(sorted((folder / "JPEGImages").iterdir()))
    _add_crop(arguments, remarks, sides)
    data = VOCSegmentation(**arguments)
    return _found("masks in VOC's layout", data, arguments, remarks, sides, numbers)


def is_folders(root: Path) -> bool:
    """Return whether there are folders of images and folders of masks for them."""
    return root.is_dir() and _patterns(root) is not None


def read_folders(root: Path) -> Found:
    """Read folders of images and folders of masks."""
    found = _patterns(root)
    if found is None:
        raise UserError(f"{root} holds no folders of images with folders of masks beside them")
    images, masks, parts = found
    train, validation, test = (
        sorted_parts(parts, f"{root / images}: ") if parts else ("", None, None)
    )
    pairs = mask_pairs(_place(root, images, train), _place(root, masks, train))[0]
    numbers = _numbers_in([mask for _, mask in pairs if is_file(mask)])
    is_camvid = masks == f"{PART}annot" and set(numbers) == set(camvid.NUMBERS)
    names, values = (camvid.CLASSES, camvid.NUMBERS) if is_camvid else _classes(root, numbers)
    arguments: dict[str, Any] = {
        "root": str(root),
        "images": images,
        "masks": masks,
        "train": train or "train",
        "val": validation,
        "test": test,
        "validation": 0.1,
    }
    remarks = {
        "images": "folder of the images of a part, below the root",
        "masks": "folder of their masks, which have the same names",
        "train": "names of the parts: the one that is trained on,",
        "val": "the one by which the best epoch is chosen (null cuts a share of training),",
        "test": "and the one that results are reported on (null cuts 20 % of training)",
        "validation": "the share that is cut where val is null",
    }
    _add_classes(arguments, remarks, names, values)
    if is_camvid:
        remarks["names"] = "those of CamVid, which has this layout, and 11 for none; or write yours"
    sides = median_sides([image for image, _ in pairs])
    sizes = {image_size(image) for image, _ in pairs[:: max(1, len(pairs) // 50)]}
    width, height = next(iter(sizes))
    if len(sizes) == 1 and sides[0] <= MAX_SMALL and 4 * width * height * len(pairs) < MAX_BYTES:
        arguments["size"] = [height, width]
        remarks["size"] = "height and width to which all are brought, and kept in memory"
    else:
        _add_crop(arguments, remarks, sides)
    data = MaskFolder(**arguments)
    return _found("folders of images and masks", data, arguments, remarks, sides, numbers)


def _found(
    layout: str,
    data: MaskFolder | VOCSegmentation,
    arguments: Mapping[str, Any],
    remarks: Mapping[str, str],
    sides: tuple[int, int],
    numbers: Mapping[int, float],
) -> Found:
    counts, parts = part_counts(data)
    assert isinstance(parts["train"], (DenseSet, MaskArray, MaskSet))
    shares = ", ".join(f"{number} ({share:.1%})" for number, share in list(numbers.items())[:12])
    return Found(
        root=Path(arguments["root"]),
        layout=layout,
        task="segmentation",
        data=type(data).__name__,
        arguments=arguments,
        remarks=remarks,
        classes=data.classes,
        counts=counts,
        sides=sides,
        facts=[f"numbers in the masks, with their share of the pixels: {shares}"],
    )


def _patterns(root: Path) -> tuple[str, str, list[str]] | None:
    """Return where images and masks are, and the names of the parts; none without parts."""
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    parts = [f.name for f in folders if _fit(f, root / f"{f.name}annot")]
    if parts:
        return PART, f"{PART}annot", parts
    for name in MASK_FOLDERS:
        for images in ("images", "image", "imgs", "img"):
            if not (root / images).is_dir():
                parts = [f.name for f in folders if _fit(f / images, f / name)]
                if parts:
                    return f"{PART}/{images}", f"{PART}/{name}", parts
                continue
            inner = sorted(path.name for path in (root / images).iterdir() if path.is_dir())
            parts = [part for part in inner if _fit(root / images / part, root / name / part)]
            if parts:
                return f"{images}/{PART}", f"{name}/{PART}", parts
            if _fit(root / images, root / name):
                return images, name, []
    return None


def _fit(images: Path, masks: Path) -> bool:
    """Return whether these folders hold images and masks of the same names."""
    if not images.is_dir() or not masks.is_dir():
        return False
    names = {path.stem for path in images.iterdir() if path.suffix.lower() in ENDINGS}
    others = {path.stem for path in masks.iterdir() if path.suffix.lower() in MASK_ENDINGS}
    return bool(names & others)


def _place(root: Path, pattern: str, part: str) -> Path:
    return root / pattern.replace(PART, part)


def _numbers_in(files: Sequence[Path]) -> dict[int, float]:
    """Return the numbers in masks with their share of the pixels.

    Raises:
        UserError: If there are no masks, or they hold too many numbers to be classes.
    """
    if not files:
        raise UserError("there are no masks for the images; a mask has the name of its image")
    chosen = files[:: max(1, len(files) // MAX_READ)][:MAX_READ]

    def count(path: Path) -> torch.Tensor:
        return torch.bincount(read_numbers(path).flatten().clamp(min=0), minlength=65536)

    total = torch.zeros(65536, dtype=torch.int64)
    with ThreadPoolExecutor() as pool:
        for counts in pool.map(count, chosen):
            total += counts[:65536]
    numbers = total.nonzero().flatten().tolist()
    if len(numbers) > MAX_CLASSES:
        raise UserError(
            f"the masks, such as {files[0]}, hold {len(numbers)} different numbers, too many to be "
            "classes; save them as PNG with one number a class, without compression losses"
        )
    return {number: float(total[number] / total.sum()) for number in numbers}


def _classes(root: Path, numbers: Mapping[int, float]) -> tuple[list[str], dict[int, int] | None]:
    """Return names by class, and the class of each number where these are not the classes."""
    labels = [number for number in numbers if number != VOID]
    if len(labels) <= 1 and VOID in numbers:  # then 255 is the foreground
        labels = [*labels, VOID]
    values = None
    if labels != list(range(len(labels))):
        values = {number: label for label, number in enumerate(labels)}
        if VOID in numbers and VOID not in values:
            values[VOID] = VOID
    names = [f"class{number}" for number in labels]
    if len(names) == 2:
        names = ["background", "object"]
    for file in NAME_FILES:
        if is_file(root / file):
            given = read_lines(root / file, "write the name of one class a line")
            if len(given) == len(labels):
                return given, values
    return names, values


def _add_classes(
    arguments: dict[str, Any],
    remarks: dict[str, str],
    names: Sequence[str],
    values: Mapping[int, int] | None,
) -> None:
    arguments["names"] = list(names)
    remarks["names"] = "of the classes, in the order of their numbers; write yours"
    if values is not None:
        arguments["values"] = dict(values)
        remarks["values"] = f"number in the masks: class; {VOID} as class is none"


def _add_crop(arguments: dict[str, Any], remarks: dict[str, str], sides: tuple[int, int]) -> None:
    crop = min(480, max(16, sides[0] - sides[0] % 16))
    arguments["crop"] = crop
    remarks["crop"] = "side of the training crops in pixels; smaller trains faster"
    arguments["shorter_side"] = [max(1, round(0.75 * crop)), 2 * crop]
    remarks["shorter_side"] = "training images are resized at random: from, to, in pixels"

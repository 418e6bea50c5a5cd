"""PASCAL VOC's boxes, turned into COCO's format."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from tutelage.data._files import check_image_files
from tutelage.data._overlap import warn_shared
from tutelage.data._text import existing, is_file, read_lines, warn_counts
from tutelage.data.sets._coco_file import CocoImage, write_instances
from tutelage.data.sets._prepare import build_folder
from tutelage.data.sets._voc_xml import BACKGROUND, check_class_names, read_voc
from tutelage.data.sets.voc import IMAGES, image_files, without_repeats
from tutelage.errors import UserError

LISTS = "ImageSets/Main"
PARTS = ["train", "val", "test"]
PRESENCE = ("-1", "0", "1")  # of a class in an image: no, in difficult objects alone, yes


def prepare_voc(root: str | Path, source: str | Path, parts: Sequence[str] | None = None) -> Path:
    """Turn a VOC folder (Annotations, JPEGImages, ImageSets/Main) into COCO's format.

    Boxes that are marked difficult become regions that evaluation ignores. VOC counts pixels from 1
    and names the last pixel of a box; here a box ends after its last pixel, and counts from 0. What
    is corrected or left out, see `read_voc`, is counted in one warning.

    Args:
        root: the folder to make.
        source: the VOC folder, such as VOCdevkit/VOC2012.
        parts: names of lists in ImageSets/Main; None takes those of train, val and test that are
            there.

    Returns:
        The new folder. What it holds, class by class, goes to standard error.

    Raises:
        UserError: If no list is named, a list, an annotation or an image is missing or wrong, a
            list is empty, no image has an object, or the new folder is there and holds something
            else.
    """
    voc = Path(source).expanduser()
    if parts is None:
        parts = [part for part in PARTS if is_file(voc / LISTS / f"{part}.txt")] or PARTS[:1]
    if not parts or not all(parts):
        raise UserError(
            f"the parts are names of lists in {voc / LISTS}, such as train,val, got "
            f"{','.join(parts)!r}"
        )

    def write(folder: Path) -> None:
        lists = {part: _sample_names(voc, part) for part in parts}
        classes = [BACKGROUND, *_class_names(voc, lists)]
        counts: Counter[str] = Counter()
        photos: dict[str, list[Path]] = {}
        for part, names in lists.items():
            (folder / part).mkdir()
            images: list[CocoImage] = []
            photos[part] = []
            for name in tqdm(names, desc=part, unit="image"):
                photo = _photo(voc, name, part)
                xml = existing(voc / "Annotations" / f"{name}.xml")
                images.append(read_voc(xml, classes, photo, counts=counts)[0])
                photos[part].append(photo)
                copy = folder / part / photo.name
                if copy.exists():
                    raise UserError(f"{part}.txt names two images {photo.name}; rename one")
                shutil.copyfile(photo, copy)
            check_image_files(photos[part])
            write_instances(folder / "annotations" / f"instances_{part}.json", images, classes)
            counted = _class_counts(images, classes)
            print(f"{part}: {len(images)} images, {counted}", file=sys.stderr)
        for part in parts[1:]:
            warn_shared(photos[parts[0]], photos[part], f"{parts[0]} and {part} of {voc}")
        warn_counts(voc / "Annotations", counts)

    settings = {"source": "voc", "folder": str(voc.resolve()), "parts": list(parts)}
    return build_folder(Path(root), settings, write)


def _class_counts(images: Sequence[CocoImage], classes: Sequence[str]) -> str:
    """Return the number of boxes of every class, in words."""
    counts = Counter(label for image in images for label in image.labels.tolist())
    return ", ".join(f"{counts[label]} {name}" for label, name in enumerate(classes) if label)


def _class_names(voc: Path, lists: dict[str, list[str]]) -> list[str]:
    """Return the names of all objects, sorted."""
    files: dict[str, Path] = {}
    for part, names in lists.items():
        for name in names:
            path = existing(voc / "Annotations" / f"{name}.xml")
            photo = _photo(voc, name, part)
            _, objects = read_voc(path, image=photo, counts=Counter())
            files.update(dict.fromkeys(objects, path))
    if not files:
        raise UserError(f"no image that {voc / LISTS} lists has an object; add 'object' entries")
    check_class_names(files)
    return sorted(files)


def _photo(voc: Path, name: str, part: str) -> Path:
    photos = list(image_files(voc, name, voc / LISTS / f"{part}.txt"))
    if len(photos) > 1:
        raise UserError(
            f"{part}.txt names {name}, which may be {photos[0].name} or {photos[1].name}; take one "
            "of them away"
        )
    if not photos:
        raise UserError(
            f"{voc / IMAGES / name}.jpg is missing, although {part}.txt lists it; get the whole "
            "VOC folder"
        )
    return photos[0]


def _sample_names(voc: Path, part: str) -> list[str]:
    """Return the names in a list; a number behind one says whether a class is in the image."""
    path = voc / LISTS / f"{part}.txt"
    if not is_file(path):
        raise UserError(
            f"{path} is missing; give a folder such as VOCdevkit/VOC2012, and parts that it has"
        )
    lines = read_lines(path, "write one name a line")
    if not lines:
        raise UserError(f"{path} names no image; write one name a line, or leave the part out")
    names = []
    for line in lines:
        words = line.rsplit(maxsplit=1)
        # A name may end in a number, too, but has no tab.
        is_flagged = words[-1] in PRESENCE and (
            "\t" in line or not any(image_files(voc, line, path))
        )
        names.append(words[0] if is_flagged else line)
    return without_repeats(names, path)

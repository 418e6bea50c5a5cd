"""Pascal VOC's XML files of boxes, read and turned into COCO's format."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from tutelage.data.coco_file import CocoImage, write_instances
from tutelage.data.prepare.folder import build
from tutelage.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    path: Path, classes: Sequence[str] | None = None, image: Path | None = None, first: int = 1
) -> tuple[CocoImage, list[str]]:
    """Return what an XML file tells of its image, and the names of its objects.

    Args:
        path: of the XML file.
        classes: names by label; label 0 is the background. None leaves the labels at 0.
        image: where the image lies; None is the file's own `filename`, beside it.
        first: number of the first pixel: 1 in VOC, whose boxes also name their last pixel; 0 for boxes that end there.

    Raises:
        UserError: the file is no VOC annotation, or an object has no box, or a name that is none of the classes.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} is no whole XML file ({error}); write it again") from None
    width, height = (int(_number(root, f"size/{name}", path)) for name in ("width", "height"))
    boxes, names, crowd = [], [], []
    for place, entry in enumerate(root.findall("object"), 1):
        what = f"object {place}"
        names.append(entry.findtext("name", "").strip())
        if classes is not None and names[-1] not in classes[1:]:
            raise UserError(f"{path}: {what} has the name {names[-1]!r}, which is none of {list(classes[1:])}")
        boxes.append([_number(entry, f"bndbox/{name}", path, what) for name in CORNERS])
        crowd.append(entry.findtext("difficult", "0").strip() == "1")
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    corners[:, :2] -= first
    labels = [0 if classes is None else classes.index(name) for name in names]
    file = image or path.with_name(root.findtext("filename", path.stem + ".jpg"))
    extent = corners[:, 2:] - corners[:, :2]
    return (
        CocoImage(
            file,
            path,
            width,
            height,
            corners,
            torch.tensor(labels, dtype=torch.int64),
            extent.prod(1),
            torch.tensor(crowd, dtype=torch.bool),
        ),
        names,
    )


def prepare_voc(root: str | Path, voc: str | Path, parts: Sequence[str] = ("train", "val")) -> Path:
    """Turn a VOC folder (Annotations, JPEGImages, ImageSets/Main) into COCO's format; return the new folder.

    Boxes that are marked difficult become regions that evaluation passes over. VOC counts pixels from 1 and names the
    last pixel of a box; here a box ends after its last pixel, and counts from 0.

    Args:
        root: the folder to make.
        voc: such as VOCdevkit/VOC2012.
        parts: names of lists in ImageSets/Main.

    Raises:
        UserError: a list, an annotation or an image is missing.
    """
    source = Path(voc).expanduser()

    def write(folder: Path) -> None:
        lists = {part: _ids(source / "ImageSets" / "Main" / f"{part}.txt") for part in parts}
        names = {name for ids in lists.values() for i in ids for name in read_voc(_annotation(source, i))[1]}
        classes = ["background", *sorted(names)]
        for part, ids in lists.items():
            (folder / part).mkdir()
            images = []
            for number in tqdm(ids, desc=part, unit="image"):
                photo = source / "JPEGImages" / f"{number}.jpg"
                if not photo.is_file():
                    raise UserError(f"{photo} is missing, although {part}.txt lists it; get the whole VOC folder")
                told, _ = read_voc(_annotation(source, number), classes, photo)
                shutil.copyfile(photo, folder / part / photo.name)
                images.append(told)
            write_instances(folder / "annotations" / f"instances_{part}.json", images, classes)

    return build(Path(root), write)


def _annotation(source: Path, number: str) -> Path:
    return source / "Annotations" / f"{number}.xml"


def _ids(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path} is missing; give a folder such as VOCdevkit/VOC2012, and parts that it has")
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def _number(entry: ElementTree.Element, name: str, path: Path, what: str = "the annotation") -> float:
    text = entry.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise UserError(f"{path}: {what} has no number {name!r} (it has {text!r})") from None

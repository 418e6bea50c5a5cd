"""PASCAL VOC: masks, read from its layout, and boxes, turned into COCO's format."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from tutelage.data._files import require_folder
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.masks import MaskFormat, MaskSet, checked_mask_set, scaled_crop
from tutelage.data.sets._coco_file import CocoImage, write_instances
from tutelage.data.sets._prepare import build_folder
from tutelage.errors import UserError

CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
CORNERS = ("xmin", "ymin", "xmax", "ymax")
IMAGES = "JPEGImages"
LISTS = "ImageSets/Segmentation"
ADVICE = (
    "unpack VOC2012 so that data.root, data.root/VOC2012 or data.root/VOCdevkit/VOC2012 holds "
    f"{IMAGES}"
)


class VOCSegmentation(ImageData):
    """PASCAL VOC 2012, or anything in its layout.

    `ImageSets/Segmentation/<part>.txt` names the samples, one a line. `JPEGImages/<name>.jpg` (or
    .png) are the images, `SegmentationClass/<name>.png` the masks: the class of every pixel, 255
    where there is none (the outlines).

    Args:
        root: the folder, or what holds it as `VOC2012` or `VOCdevkit/VOC2012`.
        train: name of the training part.
        val: name of the validation part; None cuts it from the training part.
        test: name of the test part; the default is VOC's `val`, which results are reported on.
        masks: folder of the masks; `SegmentationClassAug` with train `trainaug` are the usual
            10 582.
        names: of the classes, from 0 on; None for VOC's 21.
        crop: side of the training crops in pixels.
        validation: share of the training part that is held out for validation.
        augment: True resizes the shorter side to 0.5 to 2 times 520 pixels, crops and mirrors.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str,
        train: str = "train",
        val: str | None = None,
        test: str | None = "val",
        masks: str = "SegmentationClass",
        names: list[str] | None = None,
        crop: int = 480,
        validation: float = 0.1,
        augment: bool | nn.Module = True,
    ) -> None:
        self.root = root
        self.train = train
        self.val = val
        self.test = test
        self.masks = masks
        self.names = names
        self.crop = crop
        self.validation = validation
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Names by class."""
        return list(CLASSES if self.names is None else self.names)

    def raw_splits(self) -> RawSplits:
        """Return the parts that have a list of their own."""
        folder = self._folder()
        return (
            self._part(folder, self.train),
            None if self.val is None else self._part(folder, self.val),
            None if self.test is None else self._part(folder, self.test),
        )

    def standard_augmentation(self) -> nn.Module:
        """Resize at random, crop, mirror: torchvision's reference for these networks."""
        return scaled_crop((260, 1040), (self.crop, self.crop))

    def _folder(self) -> Path:
        root = require_folder(self.root, type(self).__name__, ADVICE)
        for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
            if (folder / IMAGES).is_dir():
                return folder
        raise UserError(f"{root} holds no {IMAGES}; {ADVICE}")

    def _part(self, folder: Path, part: str) -> MaskSet:
        return read_mask_part(folder, part, MaskFormat(len(self.classes)), self.masks)


def read_mask_part(
    root: Path, part: str, mask_format: MaskFormat, masks: str = "SegmentationClass"
) -> MaskSet:
    """Return the part that `ImageSets/Segmentation/<part>.txt` lists.

    Raises:
        UserError: If the list, an image or a mask is missing, or broken.
    """
    list_file = root / LISTS / f"{part}.txt"
    if not list_file.is_file():
        parts = sorted(path.stem for path in list_file.parent.glob("*.txt"))
        raise UserError(
            f"the list of the part {part!r}, {list_file}, is missing; there are: "
            f"{', '.join(parts) or 'none'}"
        )
    pairs = []
    for name in list_file.read_text().split():
        image = _image_file(root, name)
        if image is None:
            raise UserError(
                f"{list_file} names {name}, but {root / IMAGES / name}.jpg is missing; add it, or "
                "take the name out"
            )
        pairs.append((image, root / masks / f"{name}.png"))
    return checked_mask_set(pairs, mask_format)


def prepare_voc(
    root: str | Path, source: str | Path, parts: Sequence[str] = ("train", "val")
) -> Path:
    """Turn a VOC folder (Annotations, JPEGImages, ImageSets/Main) into COCO's format.

    Boxes that are marked difficult become regions that evaluation ignores. VOC counts pixels from 1
    and names the last pixel of a box; here a box ends after its last pixel, and counts from 0.

    Args:
        root: the folder to make.
        source: the VOC folder, such as VOCdevkit/VOC2012.
        parts: names of lists in ImageSets/Main.

    Returns:
        The new folder.

    Raises:
        UserError: If a list, an annotation or an image is missing.
    """
    voc = Path(source).expanduser()

    def write(folder: Path) -> None:
        lists = {part: _sample_names(voc / "ImageSets" / "Main" / f"{part}.txt") for part in parts}
        class_names: set[str] = set()
        for names in lists.values():
            for name in names:
                class_names.update(read_voc(voc / "Annotations" / f"{name}.xml")[1])
        classes = ["background", *sorted(class_names)]
        for part, names in lists.items():
            (folder / part).mkdir()
            images = []
            for name in tqdm(names, desc=part, unit="image"):
                photo = voc / IMAGES / f"{name}.jpg"
                if not photo.is_file():
                    raise UserError(
                        f"{photo} is missing, although {part}.txt lists it; get the whole VOC "
                        "folder"
                    )
                image, _ = read_voc(voc / "Annotations" / f"{name}.xml", classes, photo)
                shutil.copyfile(photo, folder / part / photo.name)
                images.append(image)
            write_instances(folder / "annotations" / f"instances_{part}.json", images, classes)

    return build_folder(Path(root), write)


def read_voc(
    path: Path,
    classes: Sequence[str] | None = None,
    image: Path | None = None,
    first_pixel: int = 1,
) -> tuple[CocoImage, list[str]]:
    """Read the boxes of one image.

    Args:
        path: of the XML file.
        classes: names by label; label 0 is the background. None leaves the labels at 0.
        image: the image file; None takes the XML file's own `filename`, in the same folder.
        first_pixel: number of the first pixel: 1 in VOC, whose boxes also name their last pixel; 0
            for boxes that end there.

    Returns:
        The image with its boxes, and the names of its objects.

    Raises:
        UserError: If the file is no VOC annotation, or an object has no box, or a name that is none
            of the classes.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{path} is no whole XML file ({error}); write it again") from None
    width = int(_number(root, "size/width", path))
    height = int(_number(root, "size/height", path))
    boxes: list[list[float]] = []
    names: list[str] = []
    crowd: list[bool] = []
    for number, entry in enumerate(root.findall("object"), 1):
        name = entry.findtext("name", "").strip()
        if classes is not None and name not in classes[1:]:
            raise UserError(
                f"{path}: object {number} has the name {name!r}, which is none of "
                f"{list(classes[1:])}"
            )
        names.append(name)
        boxes.append([_number(entry, f"bndbox/{key}", path, f"object {number}") for key in CORNERS])
        crowd.append(entry.findtext("difficult", "0").strip() == "1")
    corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    corners[:, :2] -= first_pixel
    labels = [0 if classes is None else classes.index(name) for name in names]
    described = CocoImage(
        path=image or path.with_name(root.findtext("filename", path.stem + ".jpg")),
        source=path,
        width=width,
        height=height,
        boxes=corners,
        labels=torch.tensor(labels, dtype=torch.int64),
        area=(corners[:, 2:] - corners[:, :2]).prod(1),
        crowd=torch.tensor(crowd, dtype=torch.bool),
    )
    return described, names


def _image_file(root: Path, name: str) -> Path | None:
    for ending in (".jpg", ".png"):
        path = root / IMAGES / f"{name}{ending}"
        if path.is_file():
            return path
    return None


def _sample_names(path: Path) -> list[str]:
    """Return the first word of every line; the second one says whether a class is in the image."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing; give a folder such as VOCdevkit/VOC2012, and parts that it has"
        )
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


def _number(
    entry: ElementTree.Element, name: str, path: Path, what: str = "the annotation"
) -> float:
    text = entry.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise UserError(f"{path}: {what} has no number {name!r} (it has {text!r})") from None

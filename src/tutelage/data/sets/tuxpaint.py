"""Objects and background: cut-outs on photographs, composed from two Debian packages."""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from tutelage.data._augmentation import mirror
from tutelage.data.image_data import RawSplits
from tutelage.data.masks import MaskFormat
from tutelage.data.sets._prepare import (
    PreparedData,
    build_folder,
    write_image_and_mask,
    write_part_list,
)
from tutelage.data.sets.voc import read_mask_part
from tutelage.errors import UserError

STAMPS = Path("/usr/share/tuxpaint/stamps")
PHOTOS = Path("/usr/share/doc/opencv-doc/examples/data")
ADVICE = "apt-get install tuxpaint-stamps-default opencv-doc"
# Drawings, and stamps that exist twice.
LEFT_OUT = re.compile(r"symbols|seasonal|sign|cartoon|military|money|mirror|flip")
# Photographs; those of one scene are in one line, so that they come into one part.
SCENES = [
    "aero1.jpg aero3.jpg",
    "aloeL.jpg aloeR.jpg",
    "apple.jpg",
    "baboon.jpg",
    "basketball1.png basketball2.png",
    "blox.jpg",
    "board.jpg",
    "box_in_scene.png box.png",
    "building.jpg",
    "butterfly.jpg",
    "cards.png",
    "chicky_512.png",
    "ela_original.jpg ela_modified.jpg",
    "fruits.jpg",
    "graf1.png graf3.png",
    "home.jpg",
    "HappyFish.jpg",
    "left01.jpg right01.jpg left05.jpg right05.jpg left12.jpg right12.jpg",
    "leuvenA.jpg leuvenB.jpg",
    "licenseplate_motion.jpg",
    "messi5.jpg",
    "orange.jpg",
    "rubberwhale1.png rubberwhale2.png",
    "smarties.png",
    "squirrel_cls.jpg",
    "starry_night.jpg",
    "stuff.jpg",
    "china.jpg",
    "flower.jpg",
]
NUM_IMAGES = {"train": 2400, "val": 200, "test": 300}
SHARES = {"val": 0.1, "test": 0.2}  # of the scenes and of the groups of stamps


class TuxPaint(PreparedData):
    """Tux Paint's photographic stamps on photographs, two classes: background and object.

    `apt-get install tuxpaint-stamps-default opencv-doc` installs stamps and photographs. The images
    are made when they are first asked for, see `prepare_tuxpaint`, and stay on disk.

    Args:
        root: the folder in which a folder for these settings is made.
        size: side of the images in pixels.
        composition_seed: of the parts and the composition.
        augment: True mirrors.
    """

    name = "tuxpaint"
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        root: str = "runs/data",
        size: int = 96,
        composition_seed: int = 0,
        augment: bool | nn.Module = False,
    ) -> None:
        self.root = root
        self.size = size
        self.composition_seed = composition_seed
        self.augment = augment

    @property
    def classes(self) -> list[str]:
        """Background and object."""
        return ["background", "object"]

    @property
    def settings(self) -> tuple[int, int]:
        """Size and seed."""
        return self.size, self.composition_seed

    def prepare(self, folder: Path) -> Path:
        """Compose the images."""
        return prepare_tuxpaint(folder, size=self.size, seed=self.composition_seed)

    def raw_splits(self) -> RawSplits:
        """Return the images."""
        folder = self.prepare(self.folder)
        mask_format = MaskFormat(len(self.classes))
        return (
            read_mask_part(folder, "train", mask_format),
            read_mask_part(folder, "val", mask_format),
            read_mask_part(folder, "test", mask_format),
        )

    def standard_augmentation(self) -> nn.Module:
        """Mirror."""
        return mirror()


def prepare_tuxpaint(root: str | Path, *, size: int = 96, seed: int = 0) -> Path:
    """Compose images and masks in the layout of PASCAL VOC.

    One to three of Tux Paint's stamps (photographs that were cut out by hand, GPL-2) are pasted on
    a random crop of a photograph of the OpenCV documentation or of scikit-learn; the mask is where
    their alpha is above one half. No stamp and no photograph is in two parts, nor are those that
    look alike. Report results on it as cut-paste.

    Args:
        root: the folder to make.
        size: side of the images in pixels.
        seed: of the parts and the composition.

    Returns:
        The folder.

    Raises:
        UserError: If a package is not installed, the size is below 32, or the folder holds
            something else, such as images of another seed.
    """
    if size < 32:
        raise UserError(f"an image has at least 32 pixels a side, got {size}")
    scenes = _scenes()
    stamps = _stamp_groups()

    def write(folder: Path) -> None:
        draw = random.Random(seed)
        stamp_files = _split_groups(stamps, draw)
        photo_files = _split_groups(scenes, draw)
        for part, count in NUM_IMAGES.items():
            photos = [_open_image(path, "RGB", 400) for path in photo_files[part]]
            cut_outs = [_cut_out(path) for path in stamp_files[part]]
            cut_outs = [cut_out for cut_out in cut_outs if cut_out is not None]
            names = [f"{part}_{number:04d}" for number in range(count)]
            for name in tqdm(names, desc=part, unit="image"):
                photo = draw.choice(photos)
                chosen = draw.choices(cut_outs, k=draw.randint(1, 3))
                image, mask = _compose(photo, chosen, size, draw)
                write_image_and_mask(folder, name, image, mask)
            write_part_list(folder, part, names)

    settings = {"source": "tuxpaint", "size": size, "seed": seed}
    return build_folder(Path(root), settings, write)


def _scenes() -> list[list[Path]]:
    """Return the installed photographs by scene."""
    folders = [PHOTOS]
    sklearn = importlib.util.find_spec("sklearn")
    if sklearn is not None and sklearn.origin is not None:
        folders.append(Path(sklearn.origin).parent / "datasets" / "images")
    scenes = []
    for names in SCENES:
        paths = [folder / name for name in names.split() for folder in folders]
        installed = [path for path in paths if path.is_file()]
        if installed:
            scenes.append(installed)
    if len(scenes) < 10:
        raise UserError(f"{PHOTOS} holds no photographs; {ADVICE}")
    return scenes


def _stamp_groups() -> list[list[Path]]:
    """Return the installed stamps; those whose names begin alike show the same thing."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(STAMPS.rglob("*.png")):
        if not LEFT_OUT.search(str(path.relative_to(STAMPS))):
            first_word = re.split(r"[^a-zA-Z]", path.stem)[0]
            groups.setdefault(f"{path.parent}/{first_word}", []).append(path)
    if len(groups) < 10:
        raise UserError(f"{STAMPS} holds no stamps; {ADVICE}")
    return list(groups.values())


def _split_groups(groups: list[list[Path]], draw: random.Random) -> dict[str, list[Path]]:
    """Return the files of each part; a group is in one part."""
    shuffled = draw.sample(groups, len(groups))
    parts: dict[str, list[Path]] = {}
    start = 0
    for part, share in SHARES.items():
        stop = start + max(1, round(share * len(groups)))
        parts[part] = [path for group in shuffled[start:stop] for path in group]
        start = stop
    parts["train"] = [path for group in shuffled[start:] for path in group]
    return parts


def _open_image(path: Path, mode: str, longest: int) -> Any:
    """Return a PIL image whose longer side is at most `longest` pixels."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path} cannot be decoded as an image ({error}); install it anew: {ADVICE}"
        ) from error
    image.thumbnail((longest, longest))
    return image


def _cut_out(path: Path) -> Any:
    """Return a stamp without its margin; None for one that is a rectangle, small or empty."""
    image = _open_image(path, "RGBA", 128)
    opaque = image.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    box = opaque.getbbox()
    if box is None:
        return None
    width = box[2] - box[0]
    height = box[3] - box[1]
    if min(width, height) < 16:
        return None
    opaque_share = sum(opaque.crop(box).histogram()[128:]) / (width * height)
    return image.crop(box) if opaque_share < 0.98 else None


def _compose(
    photo: Any, cut_outs: Sequence[Any], size: int, draw: random.Random
) -> tuple[Tensor, Tensor]:
    """Paste cut-outs on a crop of a photograph.

    Returns:
        Image uint8 (size, size, 3) and mask uint8 (size, size).
    """
    import numpy as np
    from PIL import Image, ImageOps

    # The order of the draws decides what a seed gives.
    side = int(min(photo.size) * draw.uniform(0.4, 1.0))
    left = draw.randint(0, photo.size[0] - side)
    top = draw.randint(0, photo.size[1] - side)
    crop = (left, top, left + side, top + side)
    image = photo.resize((size, size), Image.Resampling.BILINEAR, box=crop)
    if draw.random() < 0.5:
        image = ImageOps.mirror(image)
    mask = Image.new("L", (size, size), 0)
    for cut_out in cut_outs:
        scale = draw.uniform(0.3, 0.7) * size / max(cut_out.size)
        width = max(1, round(cut_out.size[0] * scale))
        height = max(1, round(cut_out.size[1] * scale))
        pasted = cut_out.resize((width, height), Image.Resampling.BILINEAR)
        if draw.random() < 0.5:
            pasted = ImageOps.mirror(pasted)
        x = draw.randint(-width // 4, size - width + width // 4)
        y = draw.randint(-height // 4, size - 3 * height // 4)
        alpha = pasted.getchannel("A")
        opaque = alpha.point(lambda value: 255 * (value > 127))
        image.paste(pasted.convert("RGB"), (x, y), alpha)
        mask.paste(1, (x, y, x + width, y + height), opaque)
    return torch.from_numpy(np.array(image)), torch.from_numpy(np.array(mask))

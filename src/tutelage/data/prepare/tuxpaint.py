"""Cut-outs with a true alpha channel, pasted on photographs: real pixels in scenes that never were."""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tutelage.data.prepare.folder import build
from tutelage.data.prepare.mask_files import write_list, write_masked
from tutelage.errors import UserError

STAMPS = Path("/usr/share/tuxpaint/stamps")
PHOTOS = Path("/usr/share/doc/opencv-doc/examples/data")
ADVICE = "apt-get install tuxpaint-stamps-default opencv-doc"
DROPPED = re.compile(r"symbols|seasonal|sign|cartoon|military|money|mirror|flip")  # drawings, and stamps twice
GROUPS = [  # photographs; of one scene in one line, so that they come into one part
    "aero1.jpg aero3.jpg", "aloeL.jpg aloeR.jpg", "apple.jpg", "baboon.jpg", "basketball1.png basketball2.png",
    "blox.jpg", "board.jpg", "box_in_scene.png box.png", "building.jpg", "butterfly.jpg", "cards.png", "chicky_512.png",
    "ela_original.jpg ela_modified.jpg", "fruits.jpg", "graf1.png graf3.png", "home.jpg", "HappyFish.jpg",
    "left01.jpg right01.jpg left05.jpg right05.jpg left12.jpg right12.jpg", "leuvenA.jpg leuvenB.jpg",
    "licenseplate_motion.jpg", "messi5.jpg", "orange.jpg", "rubberwhale1.png rubberwhale2.png", "smarties.png",
    "squirrel_cls.jpg", "starry_night.jpg", "stuff.jpg", "china.jpg", "flower.jpg",
]  # fmt: skip
COUNTS = {"train": 2400, "val": 200, "test": 300}
SHARES = {"val": 0.1, "test": 0.2}  # of the photographs' groups and of the stamps'


def prepare_tuxpaint(root: str | Path, size: int = 96, seed: int = 0) -> Path:
    """Compose images and masks in the layout of PASCAL VOC; return the folder.

    One to three of Tux Paint's stamps (photographs that were cut out by hand, GPL-2) are pasted on a random crop of a
    photograph of the OpenCV documentation or of scikit-learn; the mask is where their alpha is above one half. No stamp
    and no photograph is in two parts, nor are those that look alike. Declare results on it as cut-paste.

    Args:
        root: the folder to make.
        size: side of the images in pixels.
        seed: of the parts and the composition.

    Raises:
        UserError: a package is not installed.
    """
    if size < 32:
        raise UserError(f"an image has at least 32 pixels a side, got {size}")
    photos = _photos()
    stamps: dict[str, list[Path]] = {}
    for path in sorted(STAMPS.rglob("*.png")):
        if not DROPPED.search(str(path.relative_to(STAMPS))):
            stamps.setdefault(f"{path.parent}/{re.split(r'[^a-zA-Z]', path.stem)[0]}", []).append(path)
    if len(stamps) < 10:
        raise UserError(f"{STAMPS} holds no stamps; {ADVICE}")

    def write(folder: Path) -> None:
        draw = random.Random(seed)
        cut_outs, backgrounds = _parted(list(stamps.values()), draw), _parted(photos, draw)
        for part, count in COUNTS.items():
            opened = [_opened(path, "RGB", 400) for path in backgrounds[part]]
            pasted = [stamp for path in cut_outs[part] if (stamp := _stamp(path)) is not None]
            names = [f"{part}_{number:04d}" for number in range(count)]
            for name in tqdm(names, desc=part, unit="image"):
                image, mask = _composed(draw.choice(opened), draw.choices(pasted, k=draw.randint(1, 3)), size, draw)
                write_masked(folder, name, image, mask)
            write_list(folder, part, names)

    return build(Path(root), write)


def _photos() -> list[list[Path]]:
    """Return the photographs that are there, by scene."""
    sklearn = importlib.util.find_spec("sklearn")
    folders = [PHOTOS]
    if sklearn is not None and sklearn.origin is not None:
        folders.append(Path(sklearn.origin).parent / "datasets" / "images")
    found = [
        [folder / name for name in group.split() for folder in folders if (folder / name).is_file()] for group in GROUPS
    ]
    found = [group for group in found if group]
    if len(found) < 10:
        raise UserError(f"{PHOTOS} holds no photographs; {ADVICE}")
    return found


def _parted(groups: list[list[Path]], draw: random.Random) -> dict[str, list[Path]]:
    """Deal groups to the parts."""
    shuffled = draw.sample(groups, len(groups))
    parts: dict[str, list[Path]] = {}
    start = 0
    for part, share in SHARES.items():
        stop = start + max(1, round(share * len(groups)))
        parts[part] = [path for group in shuffled[start:stop] for path in group]
        start = stop
    return {"train": [path for group in shuffled[start:] for path in group], **parts}


def _opened(path: Path, mode: str, longest: int) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be decoded as an image ({error}); install it anew: {ADVICE}") from error
    image.thumbnail((longest, longest))
    return image


def _stamp(path: Path) -> Any:
    """Return a stamp without its margin; None for one that is not cut out, or empty."""
    image = _opened(path, "RGBA", 128)
    solid = image.getchannel("A").point(lambda alpha: 255 * (alpha > 127))
    box = solid.getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 16:
        return None
    share = sum(solid.crop(box).histogram()[128:]) / ((box[2] - box[0]) * (box[3] - box[1]))
    return image.crop(box) if share < 0.98 else None


def _composed(photo: Any, stamps: Sequence[Any], size: int, draw: random.Random) -> tuple[Any, Any]:
    """Return image and mask, uint8 (size, size, 3) and (size, size)."""
    import numpy as np
    from PIL import Image, ImageOps

    side = int(min(photo.size) * draw.uniform(0.4, 1.0))
    left, top = (draw.randint(0, whole - side) for whole in photo.size)
    image = photo.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if draw.random() < 0.5:
        image = ImageOps.mirror(image)
    mask = Image.new("L", (size, size), 0)
    for stamp in stamps:
        scale = draw.uniform(0.3, 0.7) * size / max(stamp.size)
        width, height = (max(1, round(extent * scale)) for extent in stamp.size)
        pasted = stamp.resize((width, height), Image.Resampling.BILINEAR)
        if draw.random() < 0.5:
            pasted = ImageOps.mirror(pasted)
        corner = (
            draw.randint(-width // 4, size - width + width // 4),
            draw.randint(-height // 4, size - 3 * height // 4),
        )
        alpha = pasted.getchannel("A")
        image.paste(pasted.convert("RGB"), corner, alpha)
        mask.paste(1, (*corner, corner[0] + width, corner[1] + height), alpha.point(lambda value: 255 * (value > 127)))
    return torch.from_numpy(np.array(image)), torch.from_numpy(np.array(mask))

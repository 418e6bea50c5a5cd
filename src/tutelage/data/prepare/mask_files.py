"""Write images and masks in the layout of PASCAL VOC, as `tutelage.data.voc` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

COLOURS = [0, 0, 0, 86, 180, 233, 230, 159, 0, 0, 158, 115, 204, 121, 167]  # for looking at the masks


def write_masked(root: Path, name: str, image: Tensor, mask: Tensor) -> None:
    """Write one item.

    Args:
        root: of the layout.
        name: of the item.
        image: uint8 (H, W), or (H, W, 3).
        mask: uint8 (H, W).
    """
    from PIL import Image

    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.numpy()).save(root / "JPEGImages" / f"{name}.png")
    classes = Image.fromarray(mask.numpy())
    classes.putpalette([*COLOURS, *[255] * (768 - len(COLOURS))])  # all 256, or the file has fewer bits a pixel
    classes.save(root / "SegmentationClass" / f"{name}.png")


def write_list(root: Path, part: str, names: Sequence[str]) -> None:
    """Write which items belong to a part."""
    path = root / "ImageSets" / "Segmentation" / f"{part}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))

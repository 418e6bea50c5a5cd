"""Images with masks in the layouts of PASCAL VOC and Cityscapes: colored bricks on noise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[224] * 759]
COLORS = torch.tensor([[200, 80, 40], [40, 160, 70]], dtype=torch.uint8)


def brick(size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a noisy image (H, W, 3) with a brick of class 1 and one of class 2, and its mask.

    The outlines of the bricks are 255 in the mask.
    """
    image = torch.randint(90, 160, (*size, 3), generator=generator, dtype=torch.uint8)
    mask = torch.zeros(size, dtype=torch.uint8)
    for label in (1, 2):
        height, width = size[0] // 3, size[1] // 3
        y, x = (int(torch.randint(side - side // 3, (), generator=generator)) for side in size)
        image[y : y + height, x : x + width] = COLORS[label - 1]
        mask[y : y + height, x : x + width] = 255
        mask[y + 1 : y + height - 1, x + 1 : x + width - 1] = label
    return image, mask


def write_voc_masks(
    root: Path,
    counts: dict[str, int],
    size: tuple[int, int] = (48, 64),
    num_classes: int = 3,
) -> Path:
    """Write `VOC2012` below root: JPEG images and palette masks.

    Every second image is 8 pixels higher. Classes above 2 have one pixel each, in the first mask of
    a part.
    """
    from PIL import Image

    generator = torch.Generator().manual_seed(2)
    place = root / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (place / folder).mkdir(parents=True)
    for part, count in counts.items():
        names = [f"2007_{part}{number:06d}" for number in range(count)]
        for number, name in enumerate(names):
            image, mask = brick((size[0] + 8 * (number % 2), size[1]), generator)
            if number == 0:
                mask[0, : num_classes - 3] = torch.arange(3, num_classes)
            Image.fromarray(image.numpy()).save(place / "JPEGImages" / f"{name}.jpg", quality=95)
            classes = Image.fromarray(mask.numpy())
            classes.putpalette(PALETTE)
            classes.save(place / "SegmentationClass" / f"{name}.png")
        (place / "ImageSets/Segmentation" / f"{part}.txt").write_text(
            "".join(f"{name}\n" for name in names)
        )
    return root


def write_cityscapes(root: Path, counts: dict[str, int], size: tuple[int, int] = (32, 64)) -> Path:
    """Write `leftImg8bit` and `gtFine` below root: roads (7) with a car (26) on the void (0).

    The second image of a part has a pixel of every number.
    """
    from PIL import Image

    generator = torch.Generator().manual_seed(3)
    numbers = torch.tensor([7, 26, 33, *[0] * 253], dtype=torch.uint8)
    for part, count in counts.items():
        for number in range(count):
            city = ("aachen", "ulm")[number % 2]
            image, mask = brick(size, generator)
            labels = numbers[mask.long()]
            if number == 1:
                labels[0, :34] = torch.arange(34)
            for folder, kind, pixels in (
                ("leftImg8bit", "leftImg8bit", image),
                ("gtFine", "gtFine_labelIds", labels),
            ):
                place = root / folder / part / city
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(
                    place / f"{city}_{number:06d}_000019_{kind}.png"
                )
    return root

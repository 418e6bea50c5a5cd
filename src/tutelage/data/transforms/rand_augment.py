"""RandAugment of whole batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tutelage.data.transforms.base import BatchTransform
from tutelage.data.transforms.draws import Draws
from tutelage.errors import UserError

SIGNED = (
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
)
UNSIGNED = ("identity", "posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = SIGNED + UNSIGNED
NUM_BINS = 31  # magnitudes are 0 to 30


class RandAugment(BatchTransform):
    """Apply a few of 14 operations to each image, all with one magnitude.

    Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space",
    2020. Operations, their strengths and their pixels are those of torchvision; the images of a
    batch that get the same operation are changed in one call.

    Args:
        num_ops: operations for every image.
        magnitude: of all operations, 0 to 30.

    Raises:
        UserError: If a number is out of range.
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9) -> None:
        super().__init__()
        if num_ops < 0 or not 0 <= magnitude < NUM_BINS:
            raise UserError(
                f"RandAugment takes num_ops from 0 on and a magnitude of 0 to {NUM_BINS - 1}, got "
                f"{num_ops} and {magnitude}"
            )
        self.num_ops = num_ops
        self.magnitude = magnitude

    def forward(self, images: Tensor, draws: Draws) -> Tensor:
        """Return changed images.

        Raises:
            UserError: If they are not uint8; the operations count in 256 levels.
        """
        if images.dtype != torch.uint8:
            raise UserError("RandAugment takes uint8 images; put it before what makes them float")
        for step in range(self.num_ops):
            uniform = draws.within(step).uniform(2)
            operation = (uniform[:, 0] * len(OPERATIONS)).long()
            # Even for one sign, odd for the other; unsigned operations have one group only.
            is_negative = (uniform[:, 1] < 0.5) & (operation < len(SIGNED))
            groups = 2 * operation + is_negative
            images = images.clone()
            for group in sorted(set(groups.tolist())):
                name = OPERATIONS[group // 2]
                if name == "identity":
                    continue
                rows = (groups == group).nonzero().flatten().to(images.device, non_blocking=True)
                sign = -1 if group % 2 else 1
                images.index_copy_(0, rows, self._operate(name, sign, images[rows]))
        return images

    def _operate(self, name: str, sign: int, images: Tensor) -> Tensor:
        """Return the images of a group after their operation."""
        from torchvision.transforms.v2 import functional

        share = self.magnitude / (NUM_BINS - 1)
        changed: Tensor
        if name.startswith(("shear", "translate", "rotate")):
            return _moved(images, name, sign * share)
        if name == "posterize":
            changed = functional.posterize(images, bits=round(8 - 4 * share))
        elif name == "solarize":
            changed = functional.solarize(images, threshold=255 * (1 - share))
        elif name == "autocontrast":
            changed = functional.autocontrast(images)
        elif name == "equalize":
            changed = functional.equalize(images)
        else:
            adjust = {
                "brightness": functional.adjust_brightness,
                "color": functional.adjust_saturation,
                "contrast": functional.adjust_contrast,
                "sharpness": functional.adjust_sharpness,
            }[name]
            changed = adjust(images, 1 + sign * 0.9 * share)
        return changed

    def extra_repr(self) -> str:
        """Say the settings."""
        return f"num_ops={self.num_ops}, magnitude={self.magnitude}"


def _moved(images: Tensor, name: str, share: float) -> Tensor:
    """Return images that are sheared, shifted or turned; `share` is of the strongest, -1 to 1."""
    from torchvision.transforms.v2 import functional

    height, width = images.shape[-2:]
    if name == "rotate":
        turned: Tensor = functional.rotate(images, angle=30 * share)
        return turned
    shear = [0.0, 0.0]
    shift = [0, 0]
    # The strongest shear is 0.3 pixels a pixel, the strongest shift 150 of the 331 pixels that
    # images had in the paper in which these operations were first drawn.
    if name == "shear_x":
        shear[0] = math.degrees(math.atan(0.3 * share))
    elif name == "shear_y":
        shear[1] = math.degrees(math.atan(0.3 * share))
    elif name == "translate_x":
        shift[0] = int(150 / 331 * width * share)
    else:
        shift[1] = int(150 / 331 * height * share)
    # Sheared around the corner, as in torchvision's RandAugment.
    center = [0.0, 0.0] if name.startswith("shear") else None
    moved: Tensor = functional.affine(
        images, angle=0.0, translate=shift, scale=1.0, shear=shear, center=center
    )
    return moved

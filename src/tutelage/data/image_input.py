"""How an image of one's own becomes what a trained network takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from tutelage.errors import UserError

Resize = Literal["none", "center-crop", "stretch", "region"]
BatchOf = Literal["tensor", "list"]


OVERSHOOT = 0.5  # of floats beyond [0, 1]; normalized ones go further


@dataclass(frozen=True)
class ImageInput:
    """The rule by which the images of a data set enter a network in evaluation.

    It is also what `student.json` has as `input`. The network subtracts mean and divides by std
    itself.

    >>> rule = ImageInput(channels=1, size=(8, 8), resize="center-crop")
    >>> rule(torch.full((3, 20, 30), 255, dtype=torch.uint8)).shape
    torch.Size([1, 8, 8])

    Attributes:
        channels: 3 for RGB, 1 for gray.
        size: height and width; None leaves images as they are.
        resize: `center-crop` resizes, without changing proportions, until the image just covers the
            size, and crops its center; `stretch` resizes to the size; `none` leaves the image as it
            is; `region` fits a region of the image, as of a person, into the size.
        batch: what a network takes several images as: a `tensor` (N, C, H, W), or a `list` of
            images whose sizes may differ, as torchvision's detectors.
    """

    channels: int
    size: tuple[int, int] | None = None
    resize: Resize = "none"
    batch: BatchOf = "tensor"

    def __call__(self, image: Any) -> Tensor:
        """Return the input (C, H, W), float32 in [0, 1].

        Args:
            image: a path, a PIL image, or a tensor (C, H, W) of uint8 or of floats in [0, 1].

        Raises:
            UserError: If it is none of these, or cannot be decoded.
        """
        from torchvision.transforms.v2 import functional

        pixels = self._with_channels(as_pixels(image))
        if self.resize == "stretch" and self.size is not None:
            pixels = functional.resize(pixels, list(self.size), antialias=True)
        elif self.resize == "center-crop" and self.size is not None:
            pixels = functional.resize(pixels, self._covering(pixels), antialias=True)
            pixels = functional.center_crop(pixels, list(self.size))
        return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()

    def record(self) -> dict[str, Any]:
        """Return the rule as JSON can hold it."""
        record = asdict(self)
        record["size"] = None if self.size is None else list(self.size)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ImageInput:
        """Return the rule that `record` described.

        Raises:
            UserError: If it is no such description.
        """
        size = record.get("size")
        resize = record.get("resize")
        channels = record.get("channels")
        batch = record.get("batch", "tensor")
        is_pair = isinstance(size, list) and len(size) == 2
        is_size = size is None or (is_pair and all(_is_count(side) for side in size))
        is_known = resize in get_args(Resize) and batch in get_args(BatchOf)
        if not is_size or not is_known or not _is_count(channels):
            raise UserError(
                f"an input is described by channels, size, resize and batch, got {record}"
            )
        sides = None if size is None else (size[0], size[1])
        return cls(cast("int", channels), sides, cast("Resize", resize), batch)

    def _with_channels(self, pixels: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional

        if pixels.shape[0] == self.channels:
            return pixels
        if {pixels.shape[0], self.channels} != {1, 3}:
            raise UserError(
                f"the network takes images of {self.channels} channels, got {pixels.shape[0]}; "
                "give gray or RGB"
            )
        converted: Tensor = functional.rgb_to_grayscale(pixels, num_output_channels=self.channels)
        return converted

    def _covering(self, pixels: Tensor) -> list[int]:
        """Return the size to resize to, so that the crop fits into it; as torchvision does."""
        assert self.size is not None
        height, width = pixels.shape[-2:]
        target_height, target_width = self.size
        if target_height == target_width:  # one number: the shorter side
            return [target_height]
        scale = max(target_height / height, target_width / width)
        return [
            max(round(height * scale), target_height),
            max(round(width * scale), target_width),
        ]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_values(image: Tensor) -> None:
    """Raise for a tensor without pixels, and for floats that are not in [0, 1].

    A resized image may be a little outside of it.
    """
    if not image.numel():
        raise UserError(f"an image has pixels, got a tensor of shape {tuple(image.shape)}")
    if not image.is_floating_point():
        return
    low, high = (float(value) for value in image.detach().float().aminmax())
    if not (low >= -OVERSHOOT and high <= 1 + OVERSHOOT):  # also NaN
        raise UserError(
            f"the floats of an image are in [0, 1], got {low:.3g} to {high:.3g}; divide by 255 "
            "what goes that far, and do not normalize: the network does it"
        )


def as_pixels(image: Any) -> Tensor:
    """Return an image file, a PIL image or a tensor as (C, H, W).

    Raises:
        UserError: If it is none of these, or cannot be decoded.
    """
    from PIL import Image

    from tutelage.data._files import decode_image, rgb_pixels

    if isinstance(image, (str, Path)):
        return decode_image(Path(image).expanduser())
    if isinstance(image, Image.Image):
        return rgb_pixels(image, "that was given")
    is_tensor = isinstance(image, Tensor) and image.ndim == 3
    if is_tensor and (image.dtype == torch.uint8 or image.is_floating_point()):
        _check_values(image)
        return cast("Tensor", image)
    raise UserError(
        "an image is a path, a PIL image, or a tensor (C, H, W) of uint8 or of floats in [0, 1], "
        f"got {tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__}"
    )

"""Images as encoded bytes inside of larger files, such as tar and parquet."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.data._augmentation import PaddedCrop
from tutelage.data._files import ORIENTATION, UPRIGHT, _to_rgb
from tutelage.data.image_set import ImageSet
from tutelage.errors import UserError


class ImageStore(ABC):
    """Encoded images by number, readable in any order and from any process."""

    @abstractmethod
    def content(self, number: int) -> bytes:
        """Return an image file's content, JPEG, PNG or another format that Pillow reads."""

    @abstractmethod
    def name(self, number: int) -> str:
        """Return what an image is called in messages."""


class StoredSet(ImageSet):
    """Images of a store.

    Args:
        store: has the images.
        size: side of the square that an image is resized and cropped to, unless an augmentation
            other than `PaddedCrop` does that.
        labels: (N,) int64, or (N, num_classes) float32 of 0 and 1.
        ids: (N,) int64, numbers of the images in the store.
        augment: a torchvision v2 transform that gives images of one size, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        store: ImageStore,
        size: int,
        labels: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(labels, ids, augment, seed)
        self.store = store
        self.size = size

    def image(self, position: int) -> Tensor:
        """Return one image, resized and center-cropped unless an augmentation does that."""
        number = int(self.ids[position])
        image = decode_stored(self.store.content(number), self.store.name(number))
        if self.augment is not None and not isinstance(self.augment, PaddedCrop):
            return image
        return center_crop(image, self.size)

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> StoredSet:
        """Return the samples at these positions, with another augmentation."""
        return StoredSet(
            self.store,
            self.size,
            labels=self.labels[positions],
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )


def decode_stored(content: bytes, name: str) -> Tensor:
    """Return an encoded image as uint8 (3, H, W), as `decode_image` does for a file.

    Args:
        content: of the file.
        name: of the image, for messages.

    Raises:
        UserError: If it is no image.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            # The path is for messages only.
            image = _to_rgb(file, name)
            is_tiff = file.format == "TIFF"
            orientation = 1 if is_tiff else int(file.getexif().get(ORIENTATION, 1))
    except UserError:
        raise
    except Exception as error:  # a damaged image makes Pillow raise nearly anything
        raise UserError(
            f"{name} cannot be decoded as an image ({error}); mend it, or leave it out"
        ) from error
    if orientation in UPRIGHT:
        image = image.transpose(Image.Transpose[UPRIGHT[orientation]])
    return torch.from_numpy(np.array(np.asarray(image).transpose(2, 0, 1), order="C"))


def center_crop(image: Tensor, size: int) -> Tensor:
    """Return an image (C, H, W) resized by its shorter side and cropped to a square."""
    from torchvision.transforms.v2 import functional

    resized = functional.resize(image, [size], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [size, size])
    return cropped


def check_some(store: ImageStore, numbers: Sequence[int], count: int = 16) -> None:
    """Decode some images of a store, spread over it, so that a wrong column shows at once.

    Raises:
        UserError: If one is no image.
    """
    for number in numbers[:: max(1, len(numbers) // count)][:count]:
        decode_stored(store.content(number), store.name(number))

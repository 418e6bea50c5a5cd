"""Images in files, which are decoded when they are read, or once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.data._decoded import (
    DiskSquares,
    MemorySquares,
    announce_memory,
    square,
)
from tutelage.data._files import decode_image
from tutelage.data.image_input import ImageInput
from tutelage.data.image_set import ImageSet, view_number
from tutelage.data.samples import Key
from tutelage.data.stored_set import StoredImages
from tutelage.data.transforms.base import BatchTransform, Compose
from tutelage.data.transforms.draws import Draws
from tutelage.data.transforms.geometry import RandomResizedCrop

Decode = Literal["auto", "none", "memory", "disk"]

MAX_SMALL = 64  # side of images that are kept by default
MAX_KEPT_BYTES = 2**29  # of a part whose small images are kept by default


class ImageFiles:
    """The files of a part of a data set, and what is kept of them decoded.

    Args:
        paths: of every image.
        states: size in bytes and time of the last change of every file, (N, 2).
        decode: what is kept, see `ImageFolder`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        states: Sequence[tuple[int, int]] | NDArray[np.int64],
        decode: Decode = "auto",
    ) -> None:
        self.paths = list(paths)
        self.decode = decode
        self.digest = _digest(paths, states)
        self._squares: dict[int, MemorySquares | DiskSquares] = {}

    def names(self) -> list[str]:
        """Return what the images are called: their paths."""
        return self.paths

    def decode_row(self, row: int) -> Tensor:
        """Return an image, uint8 (3, H, W)."""
        return decode_image(Path(self.paths[row]))

    def squares(self, side: int, *, is_final: bool) -> MemorySquares | DiskSquares | None:
        """Return what is kept in this size, or None if nothing is.

        Args:
            side: of the squares.
            is_final: whether they are what a network gets, but for a small crop.
        """
        if side in self._squares:
            return self._squares[side]
        kept: MemorySquares | DiskSquares | None = None
        if self.decode == "disk":
            kept = DiskSquares(self.paths, side, self.digest)
        elif self.decode == "memory":
            announce_memory(len(self.paths), side)
            kept = MemorySquares(self.paths, side)
        elif self.decode == "auto":
            fits = len(self.paths) * 3 * side**2 <= MAX_KEPT_BYTES
            if side <= MAX_SMALL and fits and is_final:
                kept = MemorySquares(self.paths, side)
        if kept is not None:
            self._squares[side] = kept
        return kept


class FileSet(ImageSet):
    """Images in files.

    Args:
        files: of a whole part, or images inside of larger files.
        rows: (N,) int64, which of the files these samples are.
        size: side of the square that an image is resized and cropped to, unless an augmentation
            does that.
        labels: (N,) int64.
        ids: (N,) int64.
        augment: a `BatchTransform`, or a torchvision v2 transform that gives images of one size; or
            None. A `BatchTransform` that begins with `RandomResizedCrop` gets whole images, and any
            other gets squares of `size`.
        seed: of the augmentation.
    """

    def __init__(
        self,
        files: ImageFiles | StoredImages,
        rows: Tensor,
        size: int,
        labels: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(labels, ids, augment, seed)
        self.files = files
        self.rows = rows
        self.size = size

    @property
    def reads_files(self) -> bool:
        """Whether images are decoded whenever they are read."""
        return self._squares() is None

    @property
    def files_digest(self) -> str | None:
        """What changes with a file that is read."""
        return self.files.digest

    def before_loading(self) -> None:
        """Decode what is kept on disk, or reserve the memory for it."""
        squares = self._squares()
        if squares is not None:
            squares.make()

    def image(self, position: int) -> Tensor:
        """Return one image: the square of `size`, or what the augmentation gets."""
        squares = self._squares()
        if squares is not None:
            return squares.rows(self.rows[position : position + 1])[0]
        image = self._decoded(position)
        return image if self._sees_whole() else square(image, self.size)

    def input_rule(self) -> ImageInput:
        """Return that the center of an image is taken, as `image` does without augmentation."""
        return ImageInput(3, (self.size, self.size), "center-crop")

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return the samples before whole batches are augmented, uint8; random crops are cut."""
        positions = torch.tensor([position for _, position in keys], dtype=torch.int64)
        squares = self._squares()
        crop = _leading_crop(self.augment)
        if self.augment is not None and not isinstance(self.augment, BatchTransform):
            return super().load(keys)
        if squares is not None:
            images = squares.rows(self.rows[positions])
        elif crop is not None:
            images = self._crops(crop, keys)
        else:
            sized = [square(self._decoded(position), self.size) for position in positions.tolist()]
            images = torch.stack(sized)
        return self._with_ids(keys, images, self.labels[positions])

    def augment_batch(self, augment: BatchTransform, images: Tensor, draws: Draws) -> Tensor:
        """Return images as `load` gave them, augmented; crops that it cut are not cut again."""
        if self._squares() is not None or _leading_crop(augment) is None:
            return super().augment_batch(augment, images, draws)
        return augment.from_step(1, images, draws) if isinstance(augment, Compose) else images

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> FileSet:
        """Return the samples at these positions, with another augmentation."""
        return FileSet(
            files=self.files,
            rows=self.rows[positions],
            size=self.size,
            labels=self.labels[positions],
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )

    def _squares(self) -> MemorySquares | DiskSquares | None:
        """Return the decoded squares that are kept; those to crop from are larger by an eighth."""
        if self._sees_whole():
            return self.files.squares(round(self.size * 8 / 7), is_final=False)
        return self.files.squares(self.size, is_final=True)

    def _sees_whole(self) -> bool:
        """Return whether the augmentation brings images to one size."""
        if self.augment is None:
            return False
        return (
            not isinstance(self.augment, BatchTransform) or _leading_crop(self.augment) is not None
        )

    def _decoded(self, position: int) -> Tensor:
        return self.files.decode_row(int(self.rows[position]))

    def _crops(self, crop: RandomResizedCrop, keys: Sequence[Key]) -> Tensor:
        """Return the first step of the augmentation; it makes images of one size out of any."""
        views = torch.tensor([view_number(self.seed, epoch) for epoch, _ in keys])
        draws = Draws(views, self.ids[[position for _, position in keys]])
        if isinstance(self.augment, Compose):
            draws = draws.within(0)
        crops = []
        for (_, position), numbers in zip(keys, crop.numbers(draws), strict=True):
            image = self._decoded(position)
            height, width = image.shape[-2:]
            crops.append(crop.cut(image, crop.box(height, width, numbers)))
        return torch.stack(crops)


def _leading_crop(augment: nn.Module | None) -> RandomResizedCrop | None:
    """Return the random resized crop that an augmentation begins with, or None."""
    if isinstance(augment, Compose) and augment.steps:
        augment = augment.steps[0]
    return augment if isinstance(augment, RandomResizedCrop) else None


def _digest(paths: Sequence[str], states: Sequence[tuple[int, int]] | NDArray[np.int64]) -> str:
    """Return what names the files as they are now."""
    digest = hashlib.blake2b("\0".join(paths).encode("utf-8", "surrogateescape"), digest_size=16)
    digest.update(np.array(states, dtype=np.int64).tobytes())
    return digest.hexdigest()

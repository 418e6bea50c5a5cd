"""Images as encoded bytes inside of larger files, such as tar and parquet."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from tutelage.data._files import decode_stream


class ImageStore(ABC):
    """Encoded images by number, readable in any order and from any process."""

    @abstractmethod
    def content(self, number: int) -> bytes:
        """Return an image file's content, JPEG, PNG or another format that Pillow reads."""

    @abstractmethod
    def name(self, number: int) -> str:
        """Return what an image is called in messages."""


class StoredImages:
    """The images of a store, for a `FileSet`; nothing of them is kept decoded.

    Args:
        store: has the images.
    """

    def __init__(self, store: ImageStore) -> None:
        self.store = store

    digest = None  # of files: that of a store is not known

    def names(self) -> list[str]:
        """Return nothing: the images have no paths of their own."""
        return []

    def decode_row(self, row: int) -> Tensor:
        """Return an image, uint8 (3, H, W)."""
        return decode_stored(self.store.content(row), self.store.name(row))

    def squares(self, side: int, *, is_final: bool) -> None:
        """Return None: nothing is kept."""
        return None


def decode_stored(content: bytes, name: str) -> Tensor:
    """Return an encoded image as uint8 (3, H, W), as `decode_image` does for a file.

    Args:
        content: of the file.
        name: of the image, for messages.

    Raises:
        UserError: If it is no image.
    """
    return decode_stream(lambda: io.BytesIO(content), name, "mend it, or leave it out")


def check_some(store: ImageStore, numbers: Sequence[int], count: int = 16) -> None:
    """Decode some images of a store, spread over it, so that a wrong column shows at once.

    Raises:
        UserError: If one is no image.
    """
    for number in numbers[:: max(1, len(numbers) // count)][:count]:
        decode_stored(store.content(number), store.name(number))

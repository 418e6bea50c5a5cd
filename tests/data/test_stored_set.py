from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage import UserError
from tutelage.data import ImageStore, StoredImages
from tutelage.data._files import ORIENTATION, decode_image
from tutelage.data.file_set import FileSet
from tutelage.data.stored_set import decode_stored


def write(path: Path, name: str) -> Path:
    """Write a JPEG that lies on its side, a 16-bit PNG or a transparent one."""
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    if name == "turned.jpg":
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        Image.fromarray(pixels).save(path / name, exif=exif)
    elif name == "deep.png":
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path / name)
    else:
        Image.new("RGBA", (9, 7), (255, 0, 0, 0)).save(path / name)
    return path / name


@pytest.mark.parametrize("name", ["turned.jpg", "deep.png", "clear.png"])
def test_bytes_are_decoded_as_files_are(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name)
    decoded = decode_stored(path.read_bytes(), name)
    assert torch.equal(decoded, decode_image(path))
    assert decoded.is_contiguous()


def test_a_damaged_image_is_named() -> None:
    with pytest.raises(UserError, match="row 3 cannot be decoded as an image"):
        decode_stored(b"\xff\xd8\xff", "row 3")


class OneImage(ImageStore):
    """The same image for every number, one pixel brighter each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def content(self, number: int) -> bytes:
        path = self.folder / f"{number}.png"
        Image.new("RGB", (12, 16), (number, number, number)).save(path)
        return path.read_bytes()

    def name(self, number: int) -> str:
        return f"image {number}"


def test_a_subset_keeps_its_ids_and_images(tmp_path: Path) -> None:
    whole = FileSet(
        StoredImages(OneImage(tmp_path)), torch.arange(6), 8, torch.arange(6), torch.arange(6)
    )
    part = whole.subset([4, 1])
    batch = part.batch([(0, 0), (0, 1)])
    assert batch.inputs.shape == (2, 3, 8, 8)
    assert batch.ids.tolist() == batch.labels.tolist() == [4, 1]
    assert (batch.inputs.amax((1, 2, 3)) * 255).round().tolist() == [4, 1]

"""Image files of every kind become the right 8-bit RGB, and damaged ones a sentence."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin
from torch import Tensor

from tutelage import UserError
from tutelage.data._files import check_image_files, decode_image

RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
EXPECTED = torch.from_numpy(RAMP / 257).expand(3, 64, 64)


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def write_png(
    path: Path, rows: np.ndarray, bits: int, color_type: int, transparent: bytes = b""
) -> Path:
    """Write rows of bytes as a PNG file of any depth, which Pillow cannot."""
    height, stride = rows.shape
    per_pixel = {0: 1, 2: 3, 4: 2, 6: 4}[color_type] * bits
    header = struct.pack(">IIBBBBB", stride * 8 // per_pixel, height, bits, color_type, 0, 0, 0)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", transparent) if transparent else b"")
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return path


def as_bytes(values: list[list[int]]) -> np.ndarray:
    """Return 16-bit values as rows of bytes."""
    return np.array(values, dtype=">u2").view(np.uint8)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.png", "uint16"),
        ("a.tif", "uint16"),
        ("a.tif", ">u2"),
        ("a.pgm", "uint16"),
        ("a.tif", "float32"),
    ],
)
def test_more_than_8_bits_are_scaled_from_their_whole_range(
    name: str, dtype: str, tmp_path: Path
) -> None:
    pixels = (RAMP / 65535 if dtype == "float32" else RAMP).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / name)
    image = decode_image(tmp_path / name)
    assert (image.dtype, image.shape) == (torch.uint8, (3, 64, 64))
    assert (image - EXPECTED).abs().max() <= 0.51


def test_16_bit_color_and_alpha_are_scaled(tmp_path: Path) -> None:
    color = write_png(tmp_path / "c.png", as_bytes([[0, 65535, 32896]]), 16, 2)
    assert decode_image(color).flatten().tolist() == [0, 255, 128]
    alpha = write_png(tmp_path / "a.png", as_bytes([[32896, 65535, 32896, 0]]), 16, 4)
    assert decode_image(alpha)[0].flatten().tolist() == [128, 255]
    one_gray = struct.pack(">H", 40000)
    gray = write_png(tmp_path / "g.png", as_bytes([[0, 65535, 40000, 32896]]), 16, 0, one_gray)
    assert decode_image(gray)[0].flatten().tolist() == [0, 255, 255, 128]
    one_color = struct.pack(">HHH", 40000, 65535, 255)
    color = write_png(tmp_path / "t.png", as_bytes([[40000, 65535, 255]]), 16, 2, one_color)
    assert decode_image(color).flatten().tolist() == [255, 255, 255]


def test_white_can_be_zero(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "a.tif", tiffinfo=tags)
    assert (255 - decode_image(tmp_path / "a.tif") - EXPECTED).abs().max() <= 0.51


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (RAMP.astype(np.int32), "32-bit or signed pixels"),
        ((RAMP / 257).astype(np.float32), "pixels outside of 0 to 1"),
        (np.full((4, 4), np.nan, dtype=np.float32), "pixels outside of 0 to 1"),
    ],
)
def test_a_range_that_is_not_known_is_refused(
    pixels: np.ndarray, says: str, tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=f"a.tif has {says}"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("mode", "color", "expected", "name"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "a.tif"),
        ("CMYK", (255, 255, 0, 0), (0, 0, 255), "a.jpg"),
        ("1", 1, (255, 255, 255), "a.png"),
        ("LA", (0, 255), (0, 0, 0), "a.png"),
        ("LA", (0, 0), (255, 255, 255), "a.png"),
        ("RGBA", (0, 0, 255, 255), (0, 0, 255), "a.webp"),
        ("YCbCr", (76, 85, 255), (254, 0, 0), "a.tif"),
        ("P", 0, (0, 0, 0), "a.gif"),
        ("L", 200, (200, 200, 200), "a.bmp"),
    ],
)
def test_every_kind_of_color_becomes_rgb(
    mode: str, color: object, expected: tuple[int, ...], name: str, tmp_path: Path
) -> None:
    Image.new(mode, (8, 8), color).save(tmp_path / name)
    found = decode_image(tmp_path / name)[:, 4, 4].int()
    assert (found - torch.tensor(expected)).abs().max() <= 3


def quarters(orientation: int, path: Path) -> Tensor:
    """Write an image of four gray quarters that is upright once its orientation is applied."""
    upright = np.kron(np.array([[0, 80], [160, 240]]), np.ones((8, 16))).astype(np.uint8)
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: np.rot90(upright.T, 2),
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation])).save(path, exif=exif, quality=95)
    return torch.from_numpy(upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_images_are_put_upright(orientation: int, name: str, tmp_path: Path) -> None:
    upright = quarters(orientation, tmp_path / name)
    image = decode_image(tmp_path / name)[0]
    assert image.shape == upright.shape
    assert (image.int() - upright.int()).abs().float().mean() < 4


def test_annotated_images_have_the_size_of_their_annotations(tmp_path: Path) -> None:
    quarters(6, tmp_path / "a.jpg")
    assert decode_image(tmp_path / "a.jpg", (32, 16)).shape == (3, 16, 32)
    assert decode_image(tmp_path / "a.jpg", (16, 32)).shape == (3, 32, 16)  # as it is stored
    upright = quarters(3, tmp_path / "b.jpg")
    stored = decode_image(tmp_path / "b.jpg", (32, 16))[0]
    assert (stored.int() - upright.flip(0, 1).int()).abs().float().mean() < 4


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("/dev/zero", tmp_path / "device.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "device.jpg", "folder.jpg"):
        with pytest.raises(UserError, match=f"{name} cannot be decoded .*no regular file"):
            check_image_files([tmp_path / name])


def test_damage_is_always_one_sentence(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    path = tmp_path / "a"
    for ending in ("png", "jpeg", "tiff", "gif", "bmp", "webp", "ppm"):
        Image.fromarray(draw.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(path, ending)
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole[: draw.integers(1, len(whole) + 1)])
            for place in draw.integers(0, len(damaged), 6):
                damaged[place] = draw.integers(256)
            path.write_bytes(damaged)
            with warnings.catch_warnings(), suppress(UserError):
                warnings.simplefilter("ignore")
                decode_image(path)


def test_an_image_of_too_many_pixels_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(UserError, match=r"large.png has more pixels than Pillow opens, .*smaller"):
        decode_image(tmp_path / "large.png")


def test_a_jpeg_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.new("RGB", (40, 40), (9, 200, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"cut\.jpg cannot be decoded as an image"):
        decode_image(path)

"""Folders and image files that data sets are read from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from tutelage.data._settings import check_root
from tutelage.data._text import is_file
from tutelage.errors import UserError

CHUNK = 1000  # files that a thread checks in one go
ORIENTATION = 0x0112  # in EXIF and TIFF
PHOTOMETRIC = 0x0106  # in TIFF; 0 if white is 0
BITS_PER_SAMPLE = 0x0102  # in TIFF
# PIL's names of the transpositions that put an image upright, by its EXIF orientation.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
LYING = (5, 6, 7, 8)  # EXIF orientations that swap width and height
NOT_UPRIGHT = (
    "images whose EXIF orientation is not applied, since boxes or masks have the stored size"
)


def require_folder(root: str | Path, name: str, advice: str) -> Path:
    """Return the folder of a data set.

    Args:
        root: where it should be.
        name: of the data set, for the message.
        advice: how to get it, for the message.

    Raises:
        UserError: If there is no such folder, or if the root is no path.
    """
    check_root(root)
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{name} is not at {folder}: there is no such folder; {advice}")
    return folder


def decode_image(path: Path, annotated_size: tuple[int, int] | None = None) -> Tensor:
    """Return the image of a file as uint8 (3, H, W).

    Transparent pixels become white. 16-bit images are scaled from their whole range, float images
    from 0 to 1. The image is put upright as its EXIF orientation says. Of several frames it is the
    first.

    Args:
        path: of the file.
        annotated_size: width and height of the image in which boxes or a mask are given. The
            orientation is then applied only if the image has this size upright, but not as stored.

    Raises:
        UserError: If the file is missing, truncated or no image, or its range is not known.
    """
    if not is_file(path):
        problem = "it is no regular file" if os.path.lexists(path) else "No such file"
        raise UserError(f"{path} cannot be decoded as an image ({problem}); mend or remove it")
    # From a path, Pillow would map some TIFF files into memory, and forget to turn them.
    return decode_stream(lambda: path.open("rb"), path, "mend or remove the file", annotated_size)


def decode_stream(
    open_stream: Callable[[], BinaryIO],
    name: str | Path,
    advice: str,
    annotated_size: tuple[int, int] | None = None,
) -> Tensor:
    """Return an encoded image as uint8 (3, H, W), as `decode_image` does.

    Args:
        open_stream: opens it; what that raises is a damage, too.
        name: of the image, for messages.
        advice: what to do about a damaged one, for messages.
        annotated_size: as in `decode_image`.

    Raises:
        UserError: If it is truncated or no image, or its range is not known.
    """
    from PIL import Image

    try:
        with open_stream() as stream, Image.open(stream) as file:
            file.load()
            return rgb_pixels(file, name, annotated_size)
    except UserError:
        raise
    except Image.DecompressionBombError as error:  # the file may well be whole
        raise UserError(
            f"{name} has more pixels than Pillow opens, twice its Image.MAX_IMAGE_PIXELS; save it "
            "in a smaller size"
        ) from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise UserError(f"{name} cannot be decoded as an image ({error}); {advice}") from error


def rgb_pixels(
    file: Any, name: str | Path, annotated_size: tuple[int, int] | None = None
) -> Tensor:
    """Return a PIL image as uint8 (3, H, W), as `decode_image` does.

    Args:
        file: the image, whose pixels are loaded.
        name: of the image, for messages.
        annotated_size: as in `decode_image`.

    Raises:
        UserError: If its range is not known.
    """
    import numpy as np
    from PIL import Image

    image = _to_rgb(file, name)
    # Pillow puts TIFF files upright by itself.
    orientation = 1 if file.format == "TIFF" else int(file.getexif().get(ORIENTATION, 1))
    if orientation in UPRIGHT and annotated_size != image.size:
        upright = image.transpose(Image.Transpose[UPRIGHT[orientation]])
        if annotated_size is None or annotated_size == upright.size:
            image = upright
    return torch.from_numpy(np.array(np.asarray(image).transpose(2, 0, 1), order="C"))


def check_image_files(paths: Sequence[Path]) -> None:
    """Check the beginning and the end of every file, so that a broken one is found before training.

    This takes about 20 microseconds for a JPEG or PNG file. Doubtful files and other formats are
    decoded.

    Raises:
        UserError: If a file is empty, truncated or no image.
    """

    def check(start: int) -> None:
        for path in paths[start : start + CHUNK]:
            if not _is_complete(path):
                decode_image(path)

    with ThreadPoolExecutor() as pool:
        # `list` waits for the threads, and raises what they raised.
        list(pool.map(check, range(0, len(paths), CHUNK)))


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image file as it is stored.

    Raises:
        UserError: If it is no image.
    """
    from PIL import Image

    # Only the beginning is read, so a very large image is no problem here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as file:
                return file.size
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise UserError(
                f"{path} cannot be decoded as an image ({error}); mend or remove the file"
            ) from error


def stored_orientation(path: Path) -> int:
    """Return the EXIF orientation of a JPEG, PNG or WebP file; 1 is upright, and is the default.

    Pillow puts TIFF files upright by itself.
    """
    from PIL import Image

    try:
        with path.open("rb") as file:
            head = file.read(1024)
        # A file without one is not opened again: there may be a hundred thousand of them.
        if b"Exif" not in head and b"eXIf" not in head and b"VP8X" not in head:
            return 1
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            return 1 if image.format == "TIFF" else int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged file is named when it is decoded
        return 1


def num_left_as_stored(paths: Sequence[Path], sizes: Sequence[tuple[int, int]]) -> int:
    """Return how many images have an EXIF orientation that `decode_image` does not apply.

    Args:
        paths: of the images.
        sizes: width and height in which boxes or masks of each are given.
    """

    def is_left(path: Path, size: tuple[int, int]) -> bool:
        orientation = stored_orientation(path)
        if orientation not in UPRIGHT:
            return False
        width, height = image_size(path)
        swaps_sides = orientation in LYING and width != height
        return not (swaps_sides and size == (height, width))

    def count(start: int) -> int:
        chunk = slice(start, start + CHUNK)
        return sum(map(is_left, paths[chunk], sizes[chunk]))

    with ThreadPoolExecutor() as pool:
        return sum(pool.map(count, range(0, len(paths), CHUNK)))


def _to_rgb(file: Any, path: Path | str) -> Any:
    """Return an open PIL image in RGB on white."""
    from PIL import Image

    if file.mode in ("I", "F") or file.mode.startswith("I;16"):
        return _deep_gray(file, path)
    if file.mode == "La":  # gray, multiplied by its alpha
        file = file.convert("LA")
    transparent = file.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:
        # A transparent color of 16 bits; Pillow has read the upper 8 bits of the pixels.
        file.info["transparency"] = tuple(value >> 8 for value in transparent)
    has_alpha = "A" in file.getbands() or "a" in file.getbands() or transparent is not None
    if not has_alpha:
        return file if file.mode == "RGB" else file.convert("RGB")  # which copies RGB, too
    image = file.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _deep_gray(file: Any, path: Path | str) -> Any:
    """Return an open gray PIL image of more than 8 bits in RGB.

    Pillow's own conversion would cut every value above 255 to white.
    """
    import numpy as np
    from PIL import Image

    values = np.asarray(file).astype(np.float64)
    highest = 65535.0
    if file.mode == "F":
        highest = 1.0
    elif file.mode == "I" and file.format not in ("PNG", "PPM"):
        raise UserError(
            f"the image {path} has 32-bit or signed pixels, for which no value is known to be "
            "white; save it with 8 or 16 bits a channel"
        )
    elif file.format == "TIFF" and file.tag_v2.get(BITS_PER_SAMPLE) == (12,):
        highest = 4095.0
    if not ((values >= 0) & (values <= highest)).all():
        raise UserError(
            f"the image {path} has pixels outside of 0 to {highest:g}; save it with values of 0 to "
            f"{highest:g}, or with 8 bits a channel"
        )
    gray = (values * (255 / highest)).round().astype(np.uint8)
    if file.format == "TIFF" and file.tag_v2.get(PHOTOMETRIC) == 0:
        gray = 255 - gray
    transparent = file.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray).convert("RGB")


def _is_complete(path: Path) -> bool:
    """Return whether this is a JPEG or PNG file with its beginning and its end."""
    if not is_file(path):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(8)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in tail
    return head == b"\x89PNG\r\n\x1a\n" and b"IEND" in tail

"""CIFAR's pickled batches, read without unpickling anything but plain values and arrays.

NumPy itself is not called by the pickle, since arrays can be described there that crash it or fill
the memory: the description is recorded, and checked before an array is made of it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.data._text import MEGABYTE, read_bytes
from tutelage.errors import UserError

FIX = "download it again"
MAX_FILE = 512 * MEGABYTE  # the largest batch, of CIFAR-100, has 155
MAX_OPERATIONS = 5_000_000  # in a pickle; a batch has some 100 000
DTYPES = {"u1": 1, "i4": 4, "i8": 8}


class _DType:
    """What a pickle says about the type of an array."""

    def __init__(self, code: object = "", *rest: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Ignore the byte order: it is that of this machine, or of single bytes."""


class _Array:
    """What a pickle says about an array.

    Attributes:
        state: version, shape, type, whether it is in Fortran's order, and the bytes.
    """

    def __init__(self, *arguments: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Return the array.

        Raises:
            ValueError: If the description is no array of whole numbers.
        """
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("an array has no content")
        _, shape, dtype, is_fortran, content = self.state
        if not isinstance(dtype, _DType) or dtype.code not in DTYPES:
            raise ValueError("an array is not of whole numbers")
        if isinstance(content, str):
            content = content.encode("latin-1")
        if not isinstance(content, bytes) or not isinstance(shape, tuple):
            raise ValueError("an array has no bytes or no shape")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("an array has a shape that is none")
        if len(shape) > 4 or math.prod(shape) * DTYPES[dtype.code] != len(content):
            raise ValueError("an array is shorter or longer than its shape")
        values = np.frombuffer(content, dtype=dtype.code)
        return values.reshape(shape, order="F" if is_fortran else "C")


def _from_buffer(
    content: object = b"", dtype: object = None, shape: object = (), order: object = "C", *_: object
) -> _Array:
    """Return what a pickle of protocol 5 says about an array."""
    content = bytes(content) if isinstance(content, bytearray) else content
    array = _Array()
    array.state = (1, shape, dtype, order == "F", content)
    return array


def _encode(text: object, encoding: object = "latin1", *rest: object) -> bytes:
    """Return bytes that a newer Python has pickled as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes are encoded in an unknown way")
    return text.encode("latin-1")


SAFE: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, bytes and arrays; refuses anything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in SAFE:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in an image file")
        return SAFE[module, name]


def read_batch(path: Path) -> dict[bytes, Any]:
    """Return a pickled dict with its keys as bytes and its arrays as NumPy's.

    Raises:
        UserError: If it is missing, or no such file.
    """
    content = read_bytes(path, MAX_FILE, FIX)
    try:
        _check_operations(content)
        value: Any = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(value, dict):
            raise ValueError("it holds no dict")
        batch = {}
        for key, entry in value.items():
            name = key.encode() if isinstance(key, str) else key
            batch[name] = entry.to_numpy() if isinstance(entry, _Array) else entry
    except Exception as error:  # a damaged pickle raises nearly anything
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as a CIFAR batch ({message}); {FIX}") from error
    return batch


def _check_operations(content: bytes) -> None:
    """Refuse what would take the unpickler all memory, or hours."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        is_put = operation.name in ("PUT", "BINPUT", "LONG_BINPUT")
        # The unpickler makes a table that is as long as the largest number of a remembered value.
        if count > MAX_OPERATIONS or (is_put and int(argument or 0) > MAX_OPERATIONS):
            raise ValueError("it has more in it than any batch")

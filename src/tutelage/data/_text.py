"""Files that list or describe samples: read in bounded memory, whatever their encoding."""

from __future__ import annotations

import codecs
import os
import re
import stat
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from tutelage.errors import UserError

MEGABYTE = 2**20
MAX_TEXT = 64 * MEGABYTE  # of a list
MAX_XML = 8 * MEGABYTE  # of the description of one image; its elements take fifty times as much
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Encodings of two or four bytes a letter; some writers declare one and write UTF-8.
WIDE = ("utf-16", "utf_16", "utf16", "utf-32", "utf_32", "utf32", "ucs", "iso-10646", "unicode")
XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


def is_file(path: Path) -> bool:
    """Return whether this is a regular file: no folder, no device, and no pipe, which would block.

    A name that no file can have is none.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, limit: int, fix: str) -> bytes:
    """Return the content of a file.

    Args:
        path: of the file.
        limit: size in bytes that such a file never has.
        fix: how to get the right file; it ends the error message.

    Raises:
        UserError: If it is missing, no regular file, larger than that, or may not be read.
    """
    if not is_file(path):
        problem = "is no regular file" if os.path.lexists(path) else "is missing"
        raise UserError(f"{path} {problem}; {fix}")
    try:
        size = path.stat().st_size
        if size > limit:
            raise UserError(f"{path} has {size} bytes, more than such a file can have; {fix}")
        with path.open("rb") as file:
            return file.read(size + 1)  # Python reserves as much memory as is asked for
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {fix}") from error


def read_lines(path: Path, fix: str) -> list[str]:
    """Return the lines of a text file that are not blank, without the space around them.

    The encoding is UTF-8 with or without a byte order mark, UTF-16 with one, or else Latin-1.

    Raises:
        UserError: If it is missing, no regular file, or no text.
    """
    content = read_bytes(path, MAX_TEXT, fix)
    encoding = _marked_encoding(content) or "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\0" in text:
        raise UserError(f"{path} is no text file; {fix}")
    return [line.strip() for line in text.splitlines() if line.strip()]


def iterate_lines(path: Path, fix: str) -> Iterator[tuple[int, str]]:
    """Give the lines of a UTF-8 file of any size that are not blank, with their numbers.

    Raises:
        UserError: If it is missing, no regular file, or not UTF-8; the message names the line.
    """
    if not is_file(path):
        problem = "is no regular file" if os.path.lexists(path) else "is missing"
        raise UserError(f"{path} {problem}; {fix}")
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}, line {number}, is not UTF-8 ({error}); {fix}") from error
            if line.strip():
                yield number, line.rstrip("\r\n")


def read_xml(path: Path, fix: str) -> ElementTree.Element:
    """Return the root of an XML file in the encoding that it declares.

    Entities of its own are refused, since a few lines of them can grow to gigabytes.

    Raises:
        UserError: If it is missing, no regular file, or no whole XML.
    """
    content = read_bytes(path, MAX_XML, fix)
    declared = XML_ENCODING.search(content[:300])
    encoding = _marked_encoding(content) or (declared[1].decode().lower() if declared else "utf-8")
    if declared and encoding.startswith(WIDE) and not _marked_encoding(content):
        encoding = "utf-8"  # else the declaration would not have been found
    try:
        text = content.decode(encoding)
        has_entities = "<!ENTITY" in text
        # Text, unlike bytes, is read in one encoding whatever the declaration says.
        root = None if has_entities else ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(f"{path} is no whole XML file ({error}); {fix}") from None
    if root is None:
        raise UserError(f"{path} defines entities, which annotations never need; {fix}")
    return root


def path_inside(folder: Path, name: str, what: str) -> Path:
    """Return the path of a file that a list names.

    Args:
        folder: where it has to be; links in it are followed.
        name: relative to the folder.
        what: names it, for the message: `/data/train.txt: line 3`.

    Raises:
        UserError: If the name is empty or absolute, leads out of the folder, or has characters that
            no name has.
    """
    parts = PurePosixPath(name).parts
    is_absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()
    has_control = any(ord(character) < 32 for character in name)
    if not parts or is_absolute or ".." in parts or has_control:
        raise UserError(
            f"{what} names the file {name[:100]!r}; give a name inside of {folder}, without '..', "
            "and move or link the file there"
        )
    return folder / name


def existing(path: Path) -> Path:
    """Return the path, or the one that differs from it only in case, if just one does."""
    if is_file(path):
        return path
    try:
        names = _names_by_case(path.parent, path.parent.stat().st_mtime_ns)
    except (OSError, ValueError):
        return path
    others = names.get(path.name.casefold(), ())
    return path.with_name(others[0]) if len(others) == 1 else path


@lru_cache(maxsize=64)
def _names_by_case(folder: Path, changed_at: int) -> Mapping[str, list[str]]:
    """Return the names in a folder by their folded case; `changed_at` forgets old answers."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(name.casefold(), []).append(name)
    return names


def warn_counts(where: object, counts: Mapping[str, int]) -> None:
    """Say in one warning what was passed over or corrected, if anything was.

    Args:
        where: file or folder.
        counts: what happened -> how often.
    """
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if listed:
        warnings.warn(f"{where}: {listed}", stacklevel=3)


def _marked_encoding(content: bytes) -> str | None:
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return encoding
    return None

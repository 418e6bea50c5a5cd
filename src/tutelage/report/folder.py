"""What a folder holds, and its files; anything missing, damaged or unfinished is a `UserError`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import UserError

# What every damaged file needs, and all that can be known about why it is damaged.
FIX = "it was cut short, edited or is of another version: repeat the command that wrote the folder"

MAX_BYTES = 2**30  # a log of a hundred thousand epochs has a tenth

Kind = Literal["run", "study", "search", "comparison"]


def folder_kind(folder: Path) -> Kind:
    """Return what the folder holds.

    Raises:
        UserError: If it is missing, is no folder, holds nothing of ours, or something unfinished.
    """
    if not folder.exists():
        raise UserError(
            f"{folder} does not exist; give the --out of `tutelage train`, `study`, `tune` or "
            "`compare`"
        )
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give the folder that it lies in")
    if (folder / "compare.json").is_file():
        return "comparison"
    if (folder / "tune.json").is_file():
        return "search"
    if (folder / "results.json").is_file():
        return "study"
    if (folder / "metrics.json").is_file():
        return "run"
    if (folder / "recipe.yaml").is_file():
        raise UserError(
            f"{folder} holds a run that is not finished; "
            "go on with `tutelage train RECIPE --resume`"
        )
    if any(folder.glob("*/seed*/recipe.yaml")):
        raise UserError(
            f"{folder} holds a study that is not finished; "
            "start `tutelage study` again with its --out"
        )
    if (folder / "tune.db").is_file():
        raise UserError(
            f"{folder} holds a search that is not finished; start `tutelage tune` again with its "
            "--out"
        )
    raise UserError(
        f"{folder} holds no run, study, search or comparison (no metrics.json, results.json, "
        "tune.json or compare.json); give the --out of `tutelage train`, `study`, `tune` or "
        "`compare`"
    )


def read_text(path: Path) -> str:
    """Return a text file."""
    return read_bytes(path).decode("utf-8", errors="replace")


def read_bytes(path: Path) -> bytes:
    """Return a file as it is."""
    if not path.is_file():
        raise UserError(f"{path} is missing; the folder is not complete")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has {path.stat().st_size} bytes, more than it can have; {FIX}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check its rights and the disk"
        ) from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is not whole JSON ({error}); {FIX}") from None


def read_lines(path: Path) -> list[Mapping[str, Any]]:
    """Return the records of a file with one JSON object a line.

    The last line is left out if it is still being written: if it is no JSON and does not end.

    Raises:
        UserError: If another line is no JSON, or no object; the message has its number.
    """
    text = read_text(path)
    lines = text.split("\n")  # what comes behind the last line's end is empty
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{path} is not whole JSON in line {number} ({error}); {FIX}") from None
        if not isinstance(record, Mapping):
            raise UserError(f"{path} holds no record in line {number} but {line!r:.40}; {FIX}")
        records.append(record)
    return records


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn a missing key, or a value of another shape, into a `UserError` that names the file.

    Whatever a reader stumbles over in a file's content is a fault of the file.
    """
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path} has no {error}; {FIX}") from None
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(f"{path} is not as tutelage writes it ({error}); {FIX}") from None


def subtitle(folder: Path, time: Any) -> str:
    """Return the line under a page's heading: the folder, and when it was written.

    >>> subtitle(Path("runs/kd"), "2026-11-25T02:08:28+00:00")
    'runs/kd · 2026-11-25 02:08 UTC'
    """
    if time is None:
        return str(folder)
    moment = datetime.fromisoformat(str(time)).astimezone(timezone.utc)
    return f"{folder} · {moment:%Y-%m-%d %H:%M} UTC"

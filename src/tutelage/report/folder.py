"""What a folder holds, and its files; anything missing, damaged or unfinished is a `UserError`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from tutelage import io
from tutelage.errors import UserError

Kind = Literal["run", "study", "comparison"]


def folder_kind(folder: Path) -> Kind:
    """Return what the folder holds.

    Raises:
        UserError: If it is missing, is no folder, holds nothing of ours, or something unfinished.
    """
    if not folder.exists():
        raise UserError(
            f"{folder} does not exist; give the --out of `tutelage train`, `study` or `compare`"
        )
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give the folder that it lies in")
    if (folder / "compare.json").is_file():
        return "comparison"
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
    raise UserError(
        f"{folder} holds no run, study or comparison (no metrics.json, results.json or "
        "compare.json); give the --out of `tutelage train`, `study` or `compare`"
    )


def read_text(path: Path) -> str:
    """Return a text file."""
    _check_exists(path)
    return path.read_text(encoding="utf-8", errors="replace")


def read_bytes(path: Path) -> bytes:
    """Return a file as it is."""
    _check_exists(path)
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    _check_exists(path)
    return io.read_json(path, "it was cut short or edited, write it again")


def read_lines(path: Path) -> list[Any]:
    """Return the records of a file with one JSON object a line.

    The last line is left out if it is still being written.
    """
    text = read_text(path)
    lines = text.splitlines()
    if lines and not text.endswith("\n") and not lines[-1].endswith("}"):
        lines.pop()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise UserError(
            f"{path} has a line that is not whole JSON ({error}); write it again"
        ) from None


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn a missing key, or a value of another shape, into a `UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(
            f"{path} has no {error}; it was cut short or is of another version, write it again"
        ) from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as tutelage writes it ({error}); write it again") from None


def subtitle(folder: Path, time: str | None) -> str:
    """Return the line under a page's heading: the folder, and when it was written.

    >>> subtitle(Path("runs/kd"), "2026-11-25T02:08:28+00:00")
    'runs/kd · 2026-11-25 02:08 UTC'
    """
    if time is None:
        return str(folder)
    moment = datetime.fromisoformat(time).astimezone(timezone.utc)
    return f"{folder} · {moment:%Y-%m-%d %H:%M} UTC"


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; the folder is not complete")

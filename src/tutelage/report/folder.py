"""What a folder holds, and its files; whatever is missing, broken or half-written is one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import UserError

Kind = Literal["run", "study", "comparison"]


def kind_of(folder: Path) -> Kind:
    """Return what the folder holds.

    Raises:
        UserError: it is missing, is no folder, holds nothing of ours, or what it holds is not finished.
    """
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give the --out of `tutelage train`, `bench` or `compare`")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give the folder that it lies in")
    if (folder / "compare.json").is_file():
        return "comparison"
    if (folder / "results.json").is_file():
        return "study"
    if (folder / "metrics.json").is_file():
        return "run"
    if (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} holds a run that is not finished; go on with `tutelage train RECIPE --resume`")
    if any(folder.glob("*/seed*/recipe.yaml")):
        raise UserError(f"{folder} holds a study that is not finished; start `tutelage bench` again with its --out")
    raise UserError(
        f"{folder} holds no run, study or comparison (no metrics.json, results.json or compare.json); "
        "give the --out of `tutelage train`, `bench` or `compare`"
    )


def read_text(path: Path) -> str:
    """Return a text file."""
    if not path.is_file():
        raise UserError(f"{path} is missing; the folder is not complete")
    return path.read_text(encoding="utf-8", errors="replace")


def read_bytes(path: Path) -> bytes:
    """Return a file as it is."""
    if not path.is_file():
        raise UserError(f"{path} is missing; the folder is not complete")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not whole JSON ({error}); it was cut short or edited, write it again") from None


def read_lines(path: Path) -> list[Any]:
    """Return the records of a file with one JSON a line; a last line that is still being written is left out."""
    text = read_text(path)
    lines = text.splitlines()
    if not text.endswith("\n") and lines and not lines[-1].endswith("}"):
        lines.pop()
    try:
        return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise UserError(f"{path} has a line that is not whole JSON ({error}); write it again") from None


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Turn a key that is missing, or a value of another shape, into one sentence that names the file."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path} has no {error}; it was cut short or is of another version, write it again") from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as tutelage writes it ({error}); write it again") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole or not there."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --out") from None

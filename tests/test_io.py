"""JSON of a run, read back: anything else than an object is one sentence, and nothing hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tutelage import UserError
from tutelage.io import MAX_JSON, read_json


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": ', "is not whole"),
        ("[" * 100_000, "is not whole"),
        ('{"a": ' + "9" * 5000 + "}", "is not whole"),
        ("\ufeff{}", "is not whole"),
        ("[1, 2]", "holds a JSON list and no object"),
        ("null", "holds a JSON NoneType and no object"),
        ('"text"', "holds a JSON str and no object"),
    ],
)
def test_what_is_no_object_is_named(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=f"metrics.json {says}.*; run it again") as raised:
        read_json(path, "run it again")
    assert len(str(raised.value)) < 500


def test_missing_files_pipes_and_absurd_sizes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(UserError, match="is missing, or no file; run it again"):
        read_json(path, "run it again")
    os.mkfifo(path)
    with pytest.raises(UserError, match="is missing, or no file; run it again"):
        read_json(path, "run it again")
    path.unlink()
    path.touch()
    os.truncate(path, MAX_JSON + 1)  # without blocks on the disk
    with pytest.raises(UserError, match="more than it can have; run it again"):
        read_json(path, "run it again")
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="is not whole"):
        read_json(path, "run it again")

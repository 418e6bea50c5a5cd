"""The query encoder of a finished run as a folder that sentence-transformers opens."""

from __future__ import annotations

import shutil
from pathlib import Path

from tutelage.io import temporary_folder
from tutelage.models.text import DualEncoder
from tutelage.models.text.ship import write_sentence_transformer

FOLDER = "student"


def export_encoder(encoder: DualEncoder, run: Path) -> None:
    """Write `student/` into a run, whole or not at all.

    Args:
        encoder: of queries; one that sentence-transformers has no form for writes nothing.
        run: folder of the run.
    """
    target = run / FOLDER
    temporary = temporary_folder(target)
    try:
        new = temporary / FOLDER
        new.mkdir()
        write_sentence_transformer(encoder, new)
        if not any(new.iterdir()):
            return
        if target.exists():  # of a run that was interrupted here
            shutil.rmtree(target)
        new.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

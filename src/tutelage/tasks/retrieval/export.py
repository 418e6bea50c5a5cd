"""The query encoder of a finished run as a folder that sentence-transformers opens."""

from __future__ import annotations

import shutil
from pathlib import Path

from tutelage.core.collection import Collection
from tutelage.io import temporary_folder, write_json
from tutelage.models.text import DualEncoder
from tutelage.models.text.digest import weights_digest
from tutelage.models.text.ship import INDEX, write_sentence_transformer

FOLDER = "student"


def export_encoder(encoder: DualEncoder, corpus: Collection, run: Path) -> None:
    """Write `student/` into a run, whole or not at all.

    Its index.json names the documents that its queries are for, whoever encodes them.

    Args:
        encoder: of queries; one that sentence-transformers has no form for writes nothing.
        corpus: the documents of the run.
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
        if not (new / INDEX).is_file():  # it encodes documents itself
            card = {
                "name": corpus.name,
                "documents": len(corpus),
                "texts": corpus.digest,
                "encoder": {"weights": weights_digest(encoder)},
            }
            write_json(new / INDEX, card)
        if target.exists():  # of a run that was interrupted here
            shutil.rmtree(target)
        new.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""The document index of a run, and the documents that it has for a query.

    student/                       encodes queries, for sentence-transformers
    student/index.json             the index that they are for: its encoder, number and texts
    index/document-<name>.npy      vectors, with .ids.json and .json, as `CachedEncoder` writes them
    index/beginnings.txt           the first words of every document, a line each; may be missing

So the folder of a teacher's cache is an index too, if it is copied or linked to `index`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.cache.stored_rows import StoredRows, ids_digest
from tutelage.core.collection import Collection
from tutelage.errors import NotInstalledError, UserError
from tutelage.io import read_json, write_text
from tutelage.models.text import DualEncoder
from tutelage.models.text.ship import INDEX
from tutelage.tasks._checks import warn_once
from tutelage.tasks.retrieval.search import search, trec_tie_order

FOLDER = "index"
QUERIES = "student"
BEGINNINGS = "beginnings.txt"
MAX_BYTES = 2 * 2**30  # of vectors that a run stores
NUM_LETTERS = 100  # of a document that are shown
FIX = (
    "train again or, where documents are inherited, copy or link the folder of the teacher's "
    "vectors (its cache) to it"
)


@dataclass(frozen=True)
class DocumentIndex:
    """Vectors of documents, and what encodes queries for them.

    Attributes:
        encoder: of sentence-transformers.
        documents: (N, d), mapped into memory.
        ids: of the rows.
        beginnings: first words of the rows, or None.
        tie_order: of documents with equal scores.
    """

    encoder: Any
    documents: Tensor
    ids: list[str]
    beginnings: list[str] | None
    tie_order: Tensor

    def top(self, query: str, k: int) -> list[dict[str, Any]]:
        """Return the best documents: id, score and, if they are known, the first words.

        Args:
            query: a text.
            k: how many.

        Raises:
            UserError: If the text is empty.
        """
        if not query.strip():
            raise UserError("the query is empty; give the words to search for")
        vector = self.encoder.encode_query([query], convert_to_tensor=True, show_progress_bar=False)
        found = search(vector.float().cpu(), self.documents, k, self.tie_order)
        entries: list[dict[str, Any]] = []
        for row, score in zip(found.documents[0].tolist(), found.scores[0].tolist(), strict=True):
            entry = {"id": self.ids[row], "score": score}
            if self.beginnings is not None:
                entry["text"] = self.beginnings[row]
            entries.append(entry)
        return entries


def write_index(model: DualEncoder, corpus: Collection, run: Path) -> None:
    """Write the vectors of the corpus into `index/` of a run that has a `student/`.

    A corpus of more than `MAX_BYTES` is not stored a second time: a warning says so.

    Args:
        model: gives the documents their vectors.
        corpus: of texts.
        run: folder of the run.
    """
    card = run / QUERIES / INDEX
    if not card.is_file():
        return
    folder = run / FOLDER
    size = 4 * len(corpus) * model.dim
    if size > MAX_BYTES:
        warn_once(
            f"{folder} is not written, since the vectors of {len(corpus)} documents take "
            f"{size / 2**30:.1f} GiB; to search with tutelage predict, copy or link the folder of "
            "the teacher's vectors (its cache) to it"
        )
        return
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted here
    rows = torch.arange(len(corpus))
    vectors = model.encode_collection(corpus, "document").float().cpu()
    stored = StoredRows(
        folder=folder,
        name=f"document-{corpus.name}",
        fingerprint={**read_json(card, FIX)["encoder"], "dtype": "float32"},
        digest=corpus.digest,
        ids=corpus.ids,
    )
    stored.make(lambda done: iter([(rows, vectors)]), (model.dim,))
    beginnings = [beginning(str(text)) for text in corpus.items]
    write_text(folder / BEGINNINGS, "\n".join(beginnings))


def read_index(run: Path) -> DocumentIndex:
    """Open the index of a run, and what encodes queries for it.

    Raises:
        UserError: If one of them is missing or damaged, sentence-transformers is not installed, or
            the index is of another encoder or of other texts than the student is for.
    """
    queries = run / QUERIES
    if not queries.is_dir():
        raise UserError(
            f"{queries} is missing, which encodes queries: the encoder of this run has no form for "
            "sentence-transformers, or that was not installed in training"
        )
    folder = run / FOLDER
    card = _card(queries / INDEX)
    name = f"document-{card['name']}"
    record = folder / f"{name}.json"
    if not record.is_file():
        raise UserError(f"{folder} has no vectors of the documents ({record.name}); {FIX}")
    fix = f"remove {folder}, and {FIX}"
    stored = read_json(record, fix)
    _check_fits(stored, card, record, fix)
    try:
        documents = torch.from_numpy(
            np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        )
        ids = _names(folder / f"{name}.ids.json")
        beginnings = None
        if (folder / BEGINNINGS).is_file():
            beginnings = (folder / BEGINNINGS).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the index in {folder} is damaged ({error}); {fix}") from error
    lengths = {len(documents), len(ids), len(ids if beginnings is None else beginnings)}
    if len(lengths) > 1:
        raise UserError(f"the files in {folder} have different numbers of documents; {fix}")
    if stored.get("ids") != ids_digest(ids):
        raise UserError(
            f"{folder / name}.ids.json has other ids than the vectors were stored with, or another "
            f"order of them; {fix}"
        )
    encoder = _open_encoder(queries)
    width = encoder.get_embedding_dimension()
    if documents.ndim != 2 or documents.shape[1] != width:
        raise UserError(
            f"the index in {folder} has vectors of shape {tuple(documents.shape)}, but queries get "
            f"vectors of width {width}; {fix}"
        )
    return DocumentIndex(encoder, documents, ids, beginnings, trec_tie_order(ids))


def beginning(text: str) -> str:
    """Return the first words of a text.

    >>> beginning("a wing  in " + "very " * 40 + "slow flow")[-11:]
    'very very …'
    """
    words = " ".join(text.split())
    if len(words) <= NUM_LETTERS:
        return words
    return words[:NUM_LETTERS].rsplit(" ", 1)[0] + " …"


def _card(path: Path) -> dict[str, Any]:
    """Return which index the queries of a run are for."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing, which names the documents that the queries are for; train again"
        )
    card = read_json(path, "train again")
    if not all(key in card for key in ("name", "texts", "encoder")):
        raise UserError(f"{path} does not name an index; train again")
    return card


def _check_fits(record: dict[str, Any], card: dict[str, Any], path: Path, fix: str) -> None:
    """Raise unless stored vectors are those that the queries are for."""
    fingerprint = record.get("fingerprint")
    stored = dict(fingerprint) if isinstance(fingerprint, dict) else {}
    stored.pop("dtype", None)
    if stored != card["encoder"]:
        raise UserError(
            f"{path} has vectors of another encoder than the one whose documents this student "
            f"searches; {fix}"
        )
    if record.get("digest") != card["texts"]:
        raise UserError(
            f"{path} has vectors of other documents than those of the run (their texts, ids or "
            f"order differ); {fix}"
        )


def _open_encoder(folder: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise NotInstalledError("the text of a query", "sentence_transformers") from error
    try:
        return SentenceTransformer(str(folder), device="cpu")
    except Exception as error:  # a damaged file of any kind
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} cannot be opened ({text}); train again") from error


def _names(path: Path) -> list[str]:
    return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))]

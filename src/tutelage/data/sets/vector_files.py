"""Ready vectors of documents and queries, with judgments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.core.collection import Collection
from tutelage.data._files import require_folder
from tutelage.data._text import warn_counts
from tutelage.data.generated_queries import Documents
from tutelage.data.retrieval_data import JudgedQueries, RetrievalContents, RetrievalData
from tutelage.data.sets._judgments import fitting_judgments, read_parts, unique_rows
from tutelage.errors import UserError

ADVICE = (
    "give a folder with documents.npy and queries.npy, (n, d) numbers, their ids as JSON lists in "
    "documents.ids.json and queries.ids.json, and qrels/train.tsv and qrels/test.tsv as BEIR's"
)


class VectorFiles(RetrievalData):
    """Vectors of another network in place of texts, for a `tutelage.models.VectorEncoder`.

        documents.npy       (n, d) float16, float32 or float64, one document a row
        documents.ids.json  list of their ids; without it they are called 0, 1, …
        queries.npy, queries.ids.json
        qrels/test.tsv      query-id, corpus-id, score with tabs and a header; train.tsv, dev.tsv

    These are the files that `tutelage.cache.CachedEncoder` writes. All vectors are held in memory
    as float32. Judgments of unknown documents and queries are counted and left out.

    Args:
        root: the folder.
        documents: name of the array of documents.
        queries: name of the array of queries, of all parts.
        validation: share of the training queries that is held out, without qrels/dev.tsv.
        judged_validation: share of the test queries that is held out instead.
        documents_per_query: documents of a training query in a batch.
    """

    def __init__(
        self,
        root: str,
        documents: str = "documents.npy",
        queries: str = "queries.npy",
        validation: float = 0.05,
        judged_validation: float = 0.0,
        documents_per_query: int = 1,
    ) -> None:
        self.root = root
        self.documents = documents
        self.queries = queries
        self.validation = validation
        self.judged_validation = judged_validation
        self.documents_per_query = documents_per_query

    def read(self) -> RetrievalContents:
        """Read the folder.

        Raises:
            UserError: If a file is missing or damaged, an id is given twice, or there are no
                judgments to train on.
        """
        root = require_folder(self.root, "the folder of vectors", ADVICE)
        ids, documents = _read(root / self.documents)
        query_ids, queries = _read(root / self.queries)
        rows = unique_rows(ids, str(root / self.documents))
        query_rows = unique_rows(query_ids, str(root / self.queries))
        parts = {}
        for part, (path, grades) in read_parts(root, ADVICE).items():
            own, judgments = fitting_judgments(part, query_ids, grades, rows, path)
            vectors = queries[[query_rows[query] for query in own]]
            parts[part] = JudgedQueries(Collection(part, own, vectors), judgments)
        if "train" not in parts:
            raise UserError(
                f"{root / 'qrels' / 'train.tsv'} is missing, and queries cannot be generated from "
                f"vectors; {ADVICE}"
            )
        judged = {query for part in parts.values() for query in part.queries.ids}
        unjudged = len(set(query_ids) - judged)
        warn_counts(root / self.queries, {"queries without judgments": unjudged})
        return RetrievalContents(
            corpus=Collection("documents", ids, documents),
            documents=Documents([], [], []),
            parts=parts,
        )


def _read(path: Path) -> tuple[list[str], Tensor]:
    """Return ids and vectors (n, d) float32 of an array's file.

    Raises:
        UserError: If it is missing, damaged or of another shape, or does not fit its ids.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {ADVICE}") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array ({error}); {ADVICE}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UserError(f"{path} holds {got} and no vectors (n, d) of floating point; {ADVICE}")
    if not array.size:
        raise UserError(f"{path} holds no vector; {ADVICE}")
    vectors = torch.from_numpy(array.astype(np.float32))
    if not bool(vectors.isfinite().all()):
        row = int((~vectors.isfinite()).any(1).nonzero()[0])
        raise UserError(f"{path}, row {row}, holds NaN or infinity; make the vectors again")
    return _ids(path.with_suffix(".ids.json"), len(vectors)), vectors


def _ids(path: Path, count: int) -> list[str]:
    if not path.exists():
        return [str(row) for row in range(count)]
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); {ADVICE}") from error
    if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
        raise UserError(f"{path} is no list of texts; {ADVICE}")
    if len(ids) != count:
        raise UserError(f"{path} names {len(ids)} rows, but its array has {count}; {ADVICE}")
    return ids

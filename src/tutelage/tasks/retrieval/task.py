"""The task of a dual encoder: rank the documents of a corpus for each query."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tutelage.core import Batch, Evaluation, Metrics, Task
from tutelage.core.modes import device_of
from tutelage.core.prediction import Prediction
from tutelage.core.teacher import Teacher
from tutelage.errors import UserError
from tutelage.models.text import DualEncoder
from tutelage.tasks._checks import warn_once
from tutelage.tasks.retrieval.beside import BesideStudent
from tutelage.tasks.retrieval.evaluation import RankedPart, evaluate_part
from tutelage.tasks.retrieval.export import export_encoder
from tutelage.tasks.retrieval.index import read_index, write_index
from tutelage.tasks.retrieval.loss import in_batch_softmax_loss


class Retrieval(Task):
    """Queries and documents get vectors, whose inner product ranks the whole corpus.

    The network is a `DualEncoder`. Training is by `in_batch_softmax_loss`. Evaluation ranks all
    documents of the part `corpus`, exactly, and gives the metrics of `rank_metrics`; with a teacher
    also its metrics as `teacher_…`, `retention_…` (student / teacher), and `query_distance` and
    `document_distance`, the mean ‖student - teacher‖ of the vectors of a space of one width.

    >>> Retrieval(temperature=0.02)
    Retrieval(temperature=0.02, bm25=True)

    Args:
        temperature: τ of the loss; 0.05 for vectors of length 1, 1.0 for raw inner products.
        bm25: give the metrics of BM25, too, as `bm25_…`, where the items are texts.

    Raises:
        UserError: If the temperature is not positive.
    """

    monitor = "ndcg@10"
    min_gain_over_chance = 0.02

    def __init__(self, temperature: float = 0.05, bm25: bool = True) -> None:
        if not 0 < temperature < math.inf:
            raise UserError(f"the temperature of retrieval must be positive, got {temperature}")
        self.temperature = temperature
        self.bm25 = bm25
        self._beside = BesideStudent()

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """Return queries, and documents if the batch has them, by name."""
        if "documents" not in batch:
            return ({"queries": batch.inputs},)
        return ({"queries": batch.inputs, "documents": batch["documents"]},)

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the in-batch softmax loss of the queries that have documents.

        Raises:
            UserError: If the network is no dual encoder, or the batch has no documents.
        """
        if not isinstance(output, Mapping) or "queries" not in output:
            raise UserError(
                f"the network gives a {type(output).__name__} without 'queries' and 'documents'; "
                "give a dual encoder, such as tutelage.models.SentenceEncoder"
            )
        queries: Tensor = output["queries"][: batch.get("num_labeled")]
        if not len(queries):  # generated queries alone
            return queries.sum()
        if "documents" not in output:
            raise UserError("the batch has no documents; train on a part that has relevant ones")
        return in_batch_softmax_loss(
            queries,
            output["documents"],
            temperature=self.temperature,
            groups=batch.get("document_groups"),
        )

    def validate(self, output: Any, batch: Batch, data: Any = None) -> None:
        """Raise unless the loss can be computed, where the batch has documents.

        Without documents query vectors alone are matched, and there is no supervised loss.
        """
        if "documents" in batch:
            self.loss(output, batch)

    def metrics(self) -> Metrics:
        """Raise: a ranking needs the whole corpus, see `evaluate`."""
        raise UserError("retrieval ranks a whole corpus; call evaluate with the parts of the data")

    def connect_teacher(self, teacher: Teacher, student: nn.Module) -> Teacher:
        """Return the teacher on the student's device: texts are on none."""
        for model in teacher.models().values():
            model.to(device_of(student))
        return teacher

    def chance_level(self) -> float:
        """Return 0: a random ranking of many documents finds next to nothing."""
        return 0.0

    def export(self, model: nn.Module, parts: Mapping[str, Any], folder: Path) -> None:
        """Write `student/` for sentence-transformers, and `index/` with the documents' vectors.

        Neither is written for an encoder that sentence-transformers has no form for.
        """
        assert isinstance(model, DualEncoder)
        corpus = parts["corpus"].corpus
        export_encoder(model, corpus, folder)
        write_index(model, corpus, folder)

    def predictor(self, folder: Path, top: int) -> Callable[[str], Prediction]:
        """Return what finds the best documents of the run's index for the text of a query.

        Args:
            folder: of a finished run.
            top: documents for each query.

        Raises:
            UserError: If the index is missing or damaged, or is not that of the student.
        """
        index = read_index(folder)

        def answer(query: str) -> Prediction:
            return Prediction({"documents": index.top(query, top)})

        return answer

    def evaluate(
        self, model: nn.Module, parts: Mapping[str, Any], run: Evaluation
    ) -> dict[str, float]:
        """Rank the corpus for every query of the part.

        Args:
            model: a `DualEncoder`.
            parts: with `corpus`.
            run: which part, and beside which teacher.

        Raises:
            UserError: If the network is none, or the data has no corpus.
        """
        if not isinstance(model, DualEncoder):
            raise UserError(
                f"the network ({type(model).__name__}) is no dual encoder; give one such as "
                "tutelage.models.SentenceEncoder, or wrap yours in tutelage.models.VectorEncoder"
            )
        if "corpus" not in parts:
            raise UserError("the data has no part 'corpus' to rank; take a RetrievalData")
        part = RankedPart.of(parts, run)
        found = evaluate_part(model, part)
        metrics = found.means()
        if run.teacher is not None:
            metrics |= self._beside.teacher(run.teacher, found, part)
        if self.bm25 and run.teacher is not None and not isinstance(part.corpus.items, Tensor):
            metrics |= self._beside.bm25(part)
        share = found.num_ties / max(len(part.rows), 1)
        if share > 0.01:
            warn_once(
                f"{100 * share:.0f} % of the {run.part} queries have equal scores at rank "
                f"{part.depth}, ordered by id: look for half-precision scores or equal documents"
            )
        metrics["num_samples"] = float(len(part.rows))
        metrics["num_documents"] = float(len(part.corpus))
        return metrics

"""What stands beside a student in its metrics: its teacher, and BM25."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.modes import eval_mode
from tutelage.core.teacher import Teacher
from tutelage.models.text import DualEncoder
from tutelage.tasks._checks import warn_once
from tutelage.tasks.retrieval.bm25 import bm25_ranking
from tutelage.tasks.retrieval.compare import paired_test
from tutelage.tasks.retrieval.evaluation import Found, RankedPart, evaluate_part, over_ranks
from tutelage.tasks.retrieval.metrics import means

COMPARED = ("ndcg@10", "mrr@10", "recall@100")


class BesideStudent:
    """Measures teacher and BM25 once for each part, however many students stand beside them."""

    def __init__(self) -> None:
        self._teachers: dict[tuple[str, int], tuple[DualEncoder, Found]] = {}
        self._bm25: dict[tuple[str, int], dict[str, float]] = {}

    def teacher(self, teacher: Teacher, student: Found, part: RankedPart) -> dict[str, float]:
        """Return the teacher's metrics, the student's retention, and the distances of vectors.

        Nothing for a teacher that is not one dual encoder, and no retention of a metric that is 0
        for the teacher.

        Args:
            teacher: of the recipe.
            student: what the student found.
            part: the queries.
        """
        models = list(teacher.models().values())
        if len(models) != 1 or not isinstance(models[0], DualEncoder):
            return {}
        model = models[0]
        key = _key(part)
        if key not in self._teachers or self._teachers[key][0] is not model:
            with eval_mode(model):
                self._teachers[key] = model, evaluate_part(model, part)
        other = self._teachers[key][1]
        metrics: dict[str, float] = {}
        own = student.means()
        its = other.means()
        for name in COMPARED:
            metrics[f"teacher_{name}"] = its[name]
            if its[name] > 0:
                metrics[f"retention_{name}"] = own[name] / its[name]
            else:
                warn_once(
                    f"the teacher's {name} on the {len(part.rows)} queries of {part.queries.name} "
                    "is 0, so that there is no retention; check that texts and ids belong together"
                )
        test = paired_test(student.by_query["ndcg@10"], other.by_query["ndcg@10"])
        metrics["difference_to_teacher"] = test.difference
        metrics["difference_to_teacher_se"] = test.standard_error
        metrics["difference_to_teacher_p"] = test.p_value
        if student.queries.shape[1] == other.queries.shape[1]:
            distances = {"query_distance": _distances(student.queries, other.queries)}
            metrics |= means(over_ranks(student.positions, distances)[0])
            apart = _distances(student.documents, other.documents)
            metrics["document_distance"] = float(apart.mean())
        return metrics

    def bm25(self, part: RankedPart) -> dict[str, float]:
        """Return the metrics of BM25."""
        key = _key(part)
        if key not in self._bm25:
            positions = torch.cat([batch.ids.cpu() for batch in part.batches(part.samples)])
            queries = part.queries.take(part.rows[positions].tolist())
            ranking = bm25_ranking(list(part.corpus.items), list(queries), part.depth)
            found, _ = over_ranks(positions, part.metrics(positions, ranking))
            self._bm25[key] = {f"bm25_{name}": means(found)[name] for name in COMPARED}
        return self._bm25[key]


def _key(part: RankedPart) -> tuple[str, int]:
    return part.corpus.digest + part.queries.digest, hash(tuple(part.rows.tolist()))


def _distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Return ‖student - teacher‖ by row, on the CPU."""
    if student is teacher:
        return torch.zeros(len(student))
    difference = student.cpu().float() - teacher.cpu().float()
    lengths: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return lengths

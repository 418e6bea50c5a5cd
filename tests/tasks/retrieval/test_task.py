"""The task on small collections: evaluation over the whole corpus, beside teacher and BM25."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.texts import TableEncoder, write_beir, write_word_vectors
from tests.methods.harness import two_ranks
from tutelage import Batch, Evaluation, FrozenTeacher
from tutelage.core.collection import Collection, Judgments
from tutelage.data import Beir, CorpusSamples, QuerySamples
from tutelage.engine.evaluate import EvalLoading, evaluate, evaluation
from tutelage.errors import UserError
from tutelage.models import StaticEncoder
from tutelage.tasks import Retrieval

LOADING = EvalLoading(5, 0, torch.device("cpu"))
TABLE = {
    "q0": [1.0, 0.0],
    "q1": [0.0, 1.0],
    "d0": [0.9, 0.1],
    "d1": [0.8, 0.3],
    "d2": [0.1, 0.9],
}


def small_parts(grades: list[tuple[int, int, int]]) -> dict[str, Any]:
    corpus = Collection("documents", ["d0", "d1", "d2"], ["d0", "d1", "d2"])
    queries = Collection("test", ["q0", "q1"], ["q0", "q1"])
    samples = QuerySamples(corpus, queries, Judgments.of(grades), with_documents=False)
    return {"test": samples, "corpus": CorpusSamples(corpus)}


def test_the_whole_corpus_is_ranked() -> None:
    parts = small_parts([(0, 1, 1), (1, 2, 1)])
    metrics = evaluate(TableEncoder(TABLE), Retrieval(), parts, evaluation("test", LOADING))
    assert metrics["mrr@10"] == 0.75
    assert metrics["success@1"] == 0.5
    assert metrics["num_documents"] == 3
    assert metrics["num_samples"] == 2
    assert "ndcg@10_without_grade_0" not in metrics


def test_documents_of_grade_0_are_counted_in_two_ways() -> None:
    parts = small_parts([(0, 1, 1), (0, 0, 0), (1, 2, 1)])
    metrics = evaluate(TableEncoder(TABLE), Retrieval(), parts, evaluation("test", LOADING))
    assert metrics["mrr@10"] == 0.75
    assert metrics["mrr@10_without_grade_0"] == 1.0


def test_a_part_of_the_queries_has_its_own_judgments() -> None:
    parts = small_parts([(0, 1, 1), (1, 2, 1)])
    parts["test"] = parts["test"].subset([1])
    metrics = evaluate(TableEncoder(TABLE), Retrieval(), parts, evaluation("test", LOADING))
    assert metrics["mrr@10"] == 1.0
    assert metrics["num_samples"] == 1


def test_teacher_retention_distances_and_bm25(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    source = str(write_word_vectors(tmp_path / "encoder"))
    parts = Beir(str(write_beir(tmp_path / "data"))).splits()
    student = StaticEncoder(source)
    teacher = FrozenTeacher(StaticEncoder(source, hidden=None))
    task = Retrieval()
    metrics = evaluate(student, task, parts, evaluation("test", LOADING, teacher))
    alone = evaluate(teacher.model, task, parts, evaluation("test", LOADING))
    assert "teacher_ndcg@10" not in alone
    for name in ("ndcg@10", "mrr@10", "recall@100"):
        assert metrics[f"teacher_{name}"] == pytest.approx(alone[name], abs=1e-12)
        expected = metrics[name] / alone[name]
        assert metrics[f"retention_{name}"] == pytest.approx(expected)
    assert metrics["difference_to_teacher"] == pytest.approx(
        metrics["ndcg@10"] - alone["ndcg@10"], abs=1e-12
    )
    texts = list(parts["test"].queries.items)
    distance = student.encode(texts, "query") - teacher.model.encode(texts, "query")
    assert metrics["query_distance"] == pytest.approx(distance.norm(dim=1).mean().item(), rel=1e-5)
    assert metrics["document_distance"] > 0
    assert metrics["bm25_ndcg@10"] > 0.5  # queries are words of their documents
    itself = evaluate(teacher.model, task, parts, evaluation("test", LOADING, teacher))
    assert itself["query_distance"] == 0
    assert itself["retention_ndcg@10"] == 1
    assert itself["difference_to_teacher_p"] == 1


def test_there_is_no_retention_of_a_teacher_that_finds_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [f"d{number}" for number in range(120)]
    corpus = Collection("documents", texts, texts)
    queries = Collection("test", ["q"], ["q"])
    samples = QuerySamples(corpus, queries, Judgments.of([(0, 0, 1)]), with_documents=False)
    parts = {"test": samples, "corpus": CorpusSamples(corpus)}
    table = {"q": [1.0], **{text: [float(number)] for number, text in enumerate(texts)}}
    teacher = FrozenTeacher(TableEncoder(table))
    student = TableEncoder({**table, "q": [-1.0]})
    run = evaluation("test", LOADING, teacher)
    metrics = evaluate(student, Retrieval(bm25=False), parts, run)
    assert metrics["ndcg@10"] == 1
    assert metrics["teacher_ndcg@10"] == metrics["teacher_recall@100"] == 0
    assert not [name for name in metrics if name.startswith("retention")]
    assert "the teacher's ndcg@10 on the 1 queries of test is 0" in capsys.readouterr().err


def metrics_on_rank(rank: int, folder: str) -> dict[str, torch.Tensor]:
    """Return the metrics that one of two ranks reports."""
    parts = Beir(f"{folder}/data").splits()
    torch.manual_seed(0)
    student = StaticEncoder(f"{folder}/encoder")
    teacher = FrozenTeacher(StaticEncoder(f"{folder}/encoder", hidden=None))
    loading = EvalLoading(5, 0, torch.device("cpu"), rank, 2)
    metrics = evaluate(student, Retrieval(), parts, evaluation("test", loading, teacher))
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in metrics.items()}


def test_two_ranks_report_what_one_does(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    write_word_vectors(tmp_path / "encoder")
    write_beir(tmp_path / "data")
    both = two_ranks(metrics_on_rank, tmp_path, str(tmp_path))
    parts = Beir(str(tmp_path / "data")).splits()
    torch.manual_seed(0)
    student = StaticEncoder(str(tmp_path / "encoder"))
    teacher = FrozenTeacher(StaticEncoder(str(tmp_path / "encoder"), hidden=None))
    whole = evaluate(student, Retrieval(), parts, evaluation("test", LOADING, teacher))
    for metrics in both:
        assert metrics.keys() == whole.keys()
        for name, value in whole.items():
            assert metrics[name].item() == pytest.approx(value, abs=1e-6), name


def test_equal_scores_at_the_end_of_a_ranking_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"d{number}" for number in range(150)]
    corpus = Collection("documents", texts, texts)
    queries = Collection("test", ["q"], ["q"])
    table = {"q": [1.0], **{text: [1.0] for text in texts}}
    samples = QuerySamples(corpus, queries, Judgments.of([(0, 149, 1)]), with_documents=False)
    parts = {"test": samples, "corpus": CorpusSamples(corpus)}
    metrics = evaluate(TableEncoder(table), Retrieval(), parts, evaluation("test", LOADING))
    assert "100 % of the test queries have equal scores at rank 100" in capsys.readouterr().err
    assert metrics["mrr@10"] == 0  # d149 comes after d99 … d91, by its id


def test_mistakes_are_named() -> None:
    parts = small_parts([(0, 1, 1)])
    run = Evaluation("test", LOADING.batches)
    with pytest.raises(UserError, match=r"the network \(Linear\) is no dual encoder"):
        Retrieval().evaluate(nn.Linear(2, 2), parts, run)
    with pytest.raises(UserError, match="has no part 'corpus'"):
        Retrieval().evaluate(TableEncoder(TABLE), {"test": parts["test"]}, run)
    with pytest.raises(UserError, match="temperature of retrieval must be positive, got 0"):
        Retrieval(temperature=0.0)
    batch = Batch({"inputs": ["q0"]})
    with pytest.raises(UserError, match="without 'queries' and 'documents'"):
        Retrieval().loss(torch.ones(1, 2), batch)
    with pytest.raises(UserError, match="the batch has no documents"):
        Retrieval().loss({"queries": torch.ones(1, 2)}, batch)
    broken = TableEncoder({**TABLE, "d1": [float("nan"), 0.0]})
    with pytest.raises(UserError, match="NaN or infinity"):
        Retrieval().evaluate(broken, parts, run)

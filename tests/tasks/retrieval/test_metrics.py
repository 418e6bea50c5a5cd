"""Metrics and search against the derived vectors, ir_measures, and brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.vectors import cases, tensor
from tutelage.core.collection import Judgments
from tutelage.errors import UserError
from tutelage.tasks.retrieval import paired_test, rank_metrics, search
from tutelage.tasks.retrieval import search as search_module
from tutelage.tasks.retrieval.metrics import without_documents
from tutelage.tasks.retrieval.search import trec_tie_order

NAME = "embeddistill"
CASES = [case for case in cases(NAME) if case.startswith("irmetrics_")]
NAMES = {
    "ndcg@10": "nDCG_at_10",
    "mrr@10": "RR_at_10_trec_ties",
    "recall@5": "R_at_5",
    "recall@20": "R_at_20",
    "recall@100": "R_at_100",
    "success@5": "Success_at_5",
    "success@20": "Success_at_20",
    "precision@10": "P_at_10",
    "map@100": "AP_at_100",
}


def judged(grades: Tensor) -> Judgments:
    rows, columns = (torch.ones_like(grades) > 0).nonzero().unbind(1)
    return Judgments(rows, columns, grades[rows, columns])


def ranked(case: str) -> tuple[Tensor, Tensor, Tensor]:
    scores = tensor(NAME, f"{case}_scores")
    grades = tensor(NAME, f"{case}_grades", torch.int64)
    ids = [f"d{number:03d}" for number in range(scores.shape[1])]
    # With one document a dimension, inner products are the scores themselves, without rounding.
    identity = torch.eye(scores.shape[1], dtype=torch.float64)
    found = search(scores, identity, 100, trec_tie_order(ids)).documents
    found[tensor(NAME, f"{case}_queries_missing_from_run", torch.int64)] = -1
    return scores, grades, found


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_those_of_the_vectors(case: str) -> None:
    scores, grades, found = ranked(case)
    metrics = rank_metrics(found, judged(grades), scores.shape[1])
    for ours, reference in NAMES.items():
        expected = tensor(NAME, f"{case}_{reference}")
        torch.testing.assert_close(metrics[ours], expected, rtol=1e-12, atol=1e-12)
        if reference == "RR_at_10_trec_ties":  # its mean is of the other order of ties
            continue
        mean = tensor(NAME, f"{case}_mean_{reference}")
        torch.testing.assert_close(metrics[ours].mean(), mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_ir_measures_agrees(case: str) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    scores, grades, found = ranked(case)
    missing = tensor(NAME, f"{case}_queries_missing_from_run", torch.int64).tolist()
    rows = range(len(scores))
    qrels = [
        ir_measures.Qrel(f"q{q}", f"d{d:03d}", int(grades[q, d]))
        for q in rows
        for d in range(scores.shape[1])
    ]
    run = [
        ir_measures.ScoredDoc(f"q{q}", f"d{d:03d}", float(scores[q, d]))
        for q in rows
        if q not in missing
        for d in range(scores.shape[1])
    ]
    measures = [ir_measures.parse_measure(m) for m in ("nDCG@10", "R@100", "P@10", "AP@100")]
    reference = ir_measures.calc_aggregate(measures, qrels, run)
    metrics = rank_metrics(found, judged(grades), scores.shape[1])
    names = ("ndcg@10", "recall@100", "precision@10", "map@100")
    for name, measure in zip(names, measures, strict=True):
        assert metrics[name].mean().item() == pytest.approx(reference[measure], abs=1e-12)


def by_brute_force(scores: Tensor, k: int, places: Tensor) -> list[list[int]]:
    order = []
    for row in scores.tolist():
        columns = sorted(range(len(row)), key=lambda c: (-row[c], int(places[c])))
        order.append(columns[:k])
    return order


@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_ties_are_broken_by_id_in_blocks_of_any_size(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(k)
    scores = torch.randint(0, 4, (9, 37), generator=generator).double()
    places = torch.randperm(37, generator=generator)
    module = __import__("sys").modules[search_module.__module__]
    monkeypatch.setattr(module, "DOCUMENT_BLOCK", 8)
    monkeypatch.setattr(module, "QUERY_BLOCK", 4)
    found = search(scores, torch.eye(37, dtype=torch.float64), k, places)
    assert found.documents.tolist() == by_brute_force(scores, k, places)


def test_a_search_is_that_of_all_scores_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(300, 16, generator=generator)
    documents = torch.randn(20_000, 16, generator=generator)
    found = search(queries, documents, 20)
    expected = (queries @ documents.mT).topk(20)
    assert (found.documents == expected.indices).float().mean() > 0.999  # rounding
    torch.testing.assert_close(found.scores, expected.values)
    assert found.num_ties == 0


def test_documents_are_left_out_of_a_ranking() -> None:
    ranking = torch.tensor([[4, 7, 2, 1], [7, 0, 3, 5]])
    out = Judgments.of([(0, 7, 0), (0, 4, 0), (1, 5, 0)])
    assert without_documents(ranking, out, 3).tolist() == [[2, 1, -1], [7, 0, 3]]


def test_a_negative_grade_gains_nothing() -> None:
    ranking = torch.tensor([[0, 1]])
    metrics = rank_metrics(ranking, Judgments.of([(0, 0, -1), (0, 1, 2)]), 5)
    assert metrics["mrr@10"].item() == 0.5
    assert metrics["ndcg@10"].item() == pytest.approx(1 / torch.log2(torch.tensor(3.0)).item())


def test_the_paired_test_finds_a_real_difference_and_no_other() -> None:
    generator = torch.Generator().manual_seed(1)
    base = torch.rand(200, generator=generator)
    noise = torch.randn(200, generator=generator)
    assert paired_test(base + 0.05 + 0.1 * noise, base).p_value < 0.001
    assert paired_test(base + 0.1 * (noise - noise.mean()), base).p_value > 0.5
    found = paired_test(base + 0.1, base)
    assert found.difference == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((torch.ones(2, 3), torch.ones(4, 5), 1), "of one width"),
        ((torch.ones(2, 3), torch.zeros(0, 3), 1), "needs documents"),
        ((torch.full((2, 3), torch.nan), torch.ones(4, 3), 1), "NaN or infinity"),
        ((torch.ones(2, 3), torch.full((4, 3), torch.nan), 1), "NaN or infinity"),
    ],
)
def test_mistakes_are_named(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        search(*arguments)
    with pytest.raises(UserError, match="one value a query"):
        paired_test(torch.ones(2), torch.ones(3))

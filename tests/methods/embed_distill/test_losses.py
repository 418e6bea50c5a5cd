"""The losses of EmbedDistill against values derived from the paper's equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods.harness import EXACT_AND_SINGLE, assert_close, cases, gradient, tensor
from tutelage.errors import UserError
from tutelage.methods import embed_matching_loss, margin_mse_loss, score_distillation_loss
from tutelage.methods.embed_distill import dual_pooling
from tutelage.tasks.retrieval import in_batch_softmax_loss

NAME = "embeddistill"


def ids(kind: str) -> list[str]:
    return [case for case in cases(NAME) if case.startswith(f"{kind}_")]


def vector(case: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return tensor(NAME, f"{case}_{key}", dtype)


def has(case: str, key: str) -> bool:
    try:
        vector(case, key)
    except KeyError:
        return False
    return True


@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.parametrize("case", ids("embed"))
def test_embedding_matching(case: str, dtype: torch.dtype, error: float) -> None:
    student = vector(case, "student", dtype).requires_grad_()
    teacher = vector(case, "teacher", dtype)
    projected = student
    weight = bias = None
    if has(case, "proj_weight"):
        weight = vector(case, "proj_weight", dtype).requires_grad_()
        projected = student @ weight.mT
    if has(case, "proj_bias"):
        bias = vector(case, "proj_bias", dtype).requires_grad_()
        projected = projected + bias
    for metric in ("l2", "squared_l2", "mse", "cosine"):
        loss = embed_matching_loss(projected, teacher, metric=metric)
        assert_close(loss, vector(case, f"loss_{metric}"), error)
    loss = embed_matching_loss(projected, teacher)
    assert_close(gradient(loss, student), vector(case, "grad_student_l2"), error)
    if weight is not None:
        assert_close(gradient(loss, weight), vector(case, "grad_proj_weight_l2"), error)
    if bias is not None:
        assert_close(gradient(loss, bias), vector(case, "grad_proj_bias_l2"), error)


@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.parametrize("case", ids("onehot"))
def test_in_batch_softmax(case: str, dtype: torch.dtype, error: float) -> None:
    queries = vector(case, "query", dtype).requires_grad_()
    documents = vector(case, "docs", dtype).requires_grad_()
    loss = in_batch_softmax_loss(queries, documents, temperature=cases(NAME)[case]["tau"])
    # float32 scores at a temperature of 0.02 are rounded fifty times as coarsely.
    error = error if dtype == torch.float64 else 10 * error
    assert_close(loss, vector(case, "loss"), error)
    assert_close(gradient(loss, queries), vector(case, "grad_query"), error)
    assert_close(gradient(loss, documents), vector(case, "grad_docs"), error)


@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.parametrize("case", ids("score"))
def test_score_distillation(case: str, dtype: torch.dtype, error: float) -> None:
    student = vector(case, "student_scores", dtype).requires_grad_()
    teacher = vector(case, "teacher_scores", dtype)
    temperatures = {
        "student_temperature": cases(NAME)[case]["student_temperature"],
        "teacher_temperature": cases(NAME)[case]["teacher_temperature"],
    }
    for form in ("ce", "kl"):
        loss = score_distillation_loss(student, teacher, form=form, **temperatures)
        assert_close(loss, vector(case, f"loss_{form}"), error)
        assert_close(gradient(loss, student), vector(case, "grad_student_scores"), error)
    loss = score_distillation_loss(student, teacher, t_squared=True, **temperatures)
    assert_close(loss, vector(case, "loss_kl_times_ts2"), error)


@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.parametrize("case", ids("margin"))
def test_margin_mse(case: str, dtype: torch.dtype, error: float) -> None:
    student = vector(case, "student_scores", dtype).requires_grad_()
    loss = margin_mse_loss(student, vector(case, "teacher_scores", dtype))
    assert_close(loss, vector(case, "loss"), error)
    assert_close(gradient(loss, student), vector(case, "grad_student_scores"), error)


@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.parametrize("case", ids("asym"))
def test_the_full_objective(case: str, dtype: torch.dtype, error: float) -> None:
    facts = cases(NAME)[case]
    student = vector(case, "student_query", dtype).requires_grad_()
    weight = vector(case, "proj_weight", dtype).requires_grad_()
    teacher = vector(case, "teacher_query", dtype)
    documents = vector(case, "teacher_docs", dtype)
    queries = student @ weight.mT
    one_hot = in_batch_softmax_loss(queries, documents, temperature=facts["tau"])
    both = {"student_temperature": facts["tau"], "teacher_temperature": facts["tau"]}
    scores = queries @ documents.mT, teacher @ documents.mT
    cross_entropy = score_distillation_loss(*scores, form="ce", **both)
    matching = embed_matching_loss(queries, teacher)
    assert_close(one_hot, vector(case, "loss_onehot"), error)
    assert_close(cross_entropy, vector(case, "loss_score_ce"), error)
    kl = score_distillation_loss(*scores, **both)
    assert_close(kl, vector(case, "loss_score_kl"), error)
    assert_close(matching, vector(case, "loss_query_embed"), error)
    total = one_hot + facts["lambda_score"] * cross_entropy + facts["lambda_embed"] * matching
    assert_close(total, vector(case, "total"), error)
    assert_close(gradient(total, weight), vector(case, "grad_proj_weight"), error)
    assert_close(gradient(total, student), vector(case, "grad_student_query"), error)


@pytest.mark.parametrize(("dtype", "error"), EXACT_AND_SINGLE)
@pytest.mark.parametrize("case", ids("dualpool"))
def test_dual_pooling(case: str, dtype: torch.dtype, error: float) -> None:
    tokens = vector(case, "tokens", dtype)
    segments = vector(case, "segment", torch.int64)
    for pooling in ("mean", "first"):
        query, document = dual_pooling(tokens, segments, pooling=pooling)
        assert_close(query, vector(case, f"query_{pooling}"), error)
        assert_close(document, vector(case, f"doc_{pooling}"), error)
        assert_close((query * document).sum(1), vector(case, f"score_{pooling}"), error)
    query, document = dual_pooling(tokens, segments)
    student = vector(case, "student_query", dtype), vector(case, "student_doc", dtype)
    assert_close(embed_matching_loss(student[0], query), vector(case, "loss_query"), error)
    assert_close(embed_matching_loss(student[1], document), vector(case, "loss_doc"), error)


def test_no_gradient_is_nan_where_vectors_agree() -> None:
    student = torch.randn(3, 4, requires_grad=True)
    loss = embed_matching_loss(student, student.detach().clone())
    assert gradient(loss, student).eq(0).all()


def test_unit_vectors_make_squared_distances_twice_the_cosine() -> None:
    student, teacher = (torch.nn.functional.normalize(torch.randn(5, 8)) for _ in range(2))
    cosine = embed_matching_loss(student, teacher, metric="cosine")
    squared = embed_matching_loss(student, teacher, metric="squared_l2")
    torch.testing.assert_close(squared, 2 * cosine)


def test_an_empty_batch_gives_zero_in_the_graph() -> None:
    nothing = torch.zeros(0, 4, requires_grad=True)
    losses = [embed_matching_loss(nothing, nothing, metric=m) for m in ("l2", "mse", "cosine")]
    losses.append(score_distillation_loss(nothing, nothing))
    losses.append(margin_mse_loss(nothing, nothing))
    for loss in losses:
        assert loss.item() == 0
        assert gradient(loss, nothing).shape == (0, 4)


def test_what_is_masked_is_no_candidate() -> None:
    student = torch.randn(2, 4, requires_grad=True)
    teacher = torch.randn(2, 4)
    mask = torch.tensor([[False, True, False, False], [False, False, False, False]])
    kept = torch.tensor([0, 2, 3])
    for form in ("kl", "ce"):
        loss = score_distillation_loss(student, teacher, form=form, mask=mask)
        alone = score_distillation_loss(student[:1, kept], teacher[:1, kept], form=form)
        other = score_distillation_loss(student[1:], teacher[1:], form=form)
        torch.testing.assert_close(loss, (alone + other) / 2)
        assert gradient(loss, student)[0, 1] == 0
        assert gradient(loss, student).isfinite().all()
    loss = margin_mse_loss(student, teacher, torch.tensor([0, 1]), mask)
    assert gradient(loss, student)[0, 1] == 0


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="student 256, teacher 384: pass a projection"):
        embed_matching_loss(torch.zeros(2, 256), torch.zeros(2, 384))
    with pytest.raises(UserError, match=r"same items, got \(2, 4\) from .* \(3, 4\)"):
        embed_matching_loss(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(UserError, match="student_temperature of EmbedDistill must be positive"):
        score_distillation_loss(torch.zeros(2, 4), torch.zeros(2, 4), student_temperature=0.0)
    with pytest.raises(UserError, match="7 documents for 2 queries"):
        in_batch_softmax_loss(torch.zeros(2, 4), torch.zeros(7, 4))
    with pytest.raises(UserError, match="the document of pair 1 has no token"):
        dual_pooling(torch.zeros(2, 2, 3), torch.tensor([[1, 2], [1, 1]]))
    with pytest.raises(UserError, match="metric is 'l2'"):
        embed_matching_loss(torch.zeros(2, 4), torch.zeros(2, 4), metric="l1")


def test_sentence_transformers_agree() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    student = torch.randn(6, 8, dtype=torch.float64)
    teacher = torch.randn(6, 8, dtype=torch.float64)
    for metric in ("l2", "mse", "cosine"):
        reference = losses.EmbedDistillLoss(torch.nn.Module(), distance_metric=metric)
        expected = reference.compute_loss_from_embeddings([student], [teacher])
        assert_close(embed_matching_loss(student, teacher, metric=metric), expected, 1e-14)
    queries, positives, negatives = torch.randn(3, 6, 8, dtype=torch.float64).unbind(0)
    labels = torch.randn(6, 2, dtype=torch.float64)
    scores = torch.stack([(queries * positives).sum(1), (queries * negatives).sum(1)], 1)
    vectors = [queries, positives, negatives]
    reference = losses.MarginMSELoss(torch.nn.Module())
    expected = reference.compute_loss_from_embeddings(vectors, labels[:, 0] - labels[:, 1])
    assert_close(margin_mse_loss(scores, labels), expected, 1e-13)
    reference = losses.DistillKLDivLoss(torch.nn.Module(), temperature=2.0)
    expected = reference.compute_loss_from_embeddings(vectors, labels)
    ours = score_distillation_loss(
        scores, labels, student_temperature=2.0, teacher_temperature=2.0, t_squared=True
    )
    assert_close(ours, expected, 1e-13)

"""The method: its switches, its student, two ranks, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.helpers.texts import TableEncoder, collection
from tests.methods.harness import assert_close, two_ranks
from tutelage.core import Batch, Distiller, FrozenTeacher, Method, NoTeacher, Output, Step
from tutelage.errors import UserError
from tutelage.methods import (
    Baseline,
    EmbedDistill,
    embed_matching_loss,
    margin_mse_loss,
    score_distillation_loss,
)
from tutelage.models import DualEncoder, InheritedDocuments, ProjectedEncoder, VectorEncoder
from tutelage.tasks import Retrieval

# Networks whose output is a tensor have query vectors alone.
EXAMPLES: dict[str, Callable[[], Method]] = {
    "embed_distill": lambda: EmbedDistill(score_weight=0.0),
    "embed_distill_cosine": lambda: EmbedDistill(score_weight=0.0, metric="cosine"),
}
RANK_EXAMPLES: dict[str, Callable[[], Method]] = {
    "embed_distill": lambda: EmbedDistill(score_weight=0.0),
}


def vectors(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def vector_batch(count: int = 6, per_query: int = 1, generated: int = 0) -> Batch:
    """Return a batch of ready vectors in place of texts."""
    return Batch(
        {
            "inputs": vectors(count + generated, 8, seed=1),
            "documents": vectors(count * per_query, 8, seed=2),
            "document_groups": torch.arange(count * per_query) % 5,
            "labels": torch.arange(count + generated),
            "num_labeled": count,
            "ids": torch.arange(count + generated),
        }
    )


def vector_encoder(dim: int, seed: int, normalized: bool = True) -> VectorEncoder:
    torch.manual_seed(seed)
    return VectorEncoder(nn.Linear(8, dim).double(), dim=dim, normalized=normalized)


def distilled(
    method: Method,
    batch: Batch | None = None,
    student_dim: int = 4,
    teacher_dim: int = 4,
    accumulate: int = 1,
) -> Distiller:
    teacher = FrozenTeacher(vector_encoder(teacher_dim, seed=5))
    student = method.build_student(vector_encoder(student_dim, seed=6), teacher).double()
    distiller = Distiller(student, teacher, method, Retrieval(), accumulate=accumulate)
    distiller.setup(vector_batch() if batch is None else batch)
    return distiller


def test_the_rows_of_the_paper_are_settings() -> None:
    rows = {
        "direct": Baseline(),
        "score": EmbedDistill(inherit_documents=False, embed_weight=0.0),
        "inherited": EmbedDistill(embed_weight=0.0),
        "matching": EmbedDistill(),
        "generated": EmbedDistill(shares={"generated": 0.5}),
        "own documents": EmbedDistill(inherit_documents=False),
    }
    batch = vector_batch(generated=3)
    terms = {name: sorted(distilled(method, batch)(batch)) for name, method in rows.items()}
    score, query = "embed_distill/score", "embed_distill/query"
    assert terms == {
        "direct": ["task"],
        "score": [score, "task"],
        "inherited": [score, "task"],
        "matching": [query, score, "task"],
        "generated": ["embed_distill/generated", query, score, "task"],
        "own documents": ["embed_distill/document", query, score, "task"],
    }


def test_the_terms_are_the_pure_functions() -> None:
    batch = vector_batch(per_query=2, generated=3)
    method = EmbedDistill(
        inherit_documents=False,
        embed_weight=2.0,
        score_weight=3.0,
        generated_weight=5.0,
        shares={"generated": 0.5},
        metric="squared_l2",
    )
    distiller = distilled(method, batch)
    terms = distiller(batch)
    student = distiller.student(batch.inputs, batch["documents"])
    teacher = distiller.teacher.models()["teacher"](batch.inputs, batch["documents"])
    metric = {"metric": "squared_l2"}
    loss = embed_matching_loss(student["queries"][:6], teacher["queries"][:6], **metric)
    assert_close(terms["embed_distill/query"], 2 * loss, 1e-12)
    loss = embed_matching_loss(student["queries"][6:], teacher["queries"][6:], **metric)
    assert_close(terms["embed_distill/generated"], 5 * loss, 1e-12)
    loss = embed_matching_loss(student["documents"], teacher["documents"], **metric)
    assert_close(terms["embed_distill/document"], 2 * loss, 1e-12)
    groups = batch["document_groups"]
    own = torch.arange(6) * 2
    mask = groups.unsqueeze(0) == groups[own].unsqueeze(1)
    mask[torch.arange(6), own] = False
    scores = [x["queries"][:6] @ x["documents"].mT for x in (student, teacher)]
    loss = score_distillation_loss(
        *scores, student_temperature=0.05, teacher_temperature=0.05, mask=mask
    )
    assert_close(terms["embed_distill/score"], 3 * loss, 1e-12)
    margin = distilled(EmbedDistill(inherit_documents=False, form="margin_mse"), batch)
    assert_close(margin(batch)["embed_distill/score"], margin_mse_loss(*scores, own, mask), 1e-12)


def test_only_the_query_tower_and_the_projection_are_trained() -> None:
    distiller = distilled(EmbedDistill(), student_dim=3, teacher_dim=4)
    student = distiller.student
    assert isinstance(student, InheritedDocuments)
    assert isinstance(student.query, ProjectedEncoder)
    names = [name for name, _ in distiller.named_parameters()]
    assert names == [
        "student.query.encoder.query.weight",
        "student.query.encoder.query.bias",
        "student.query.projection.weight",
        "student.query.projection.bias",
    ]
    teacher = distiller.teacher.models()["teacher"]
    before = [p.clone() for p in teacher.parameters()]
    sum(distiller(vector_batch()).values()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(p, q) for p, q in zip(teacher.parameters(), before, strict=True))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in distiller.parameters())
    # What is shipped has the projection inside: a student without it would speak another space.
    state = distiller.deploy().state_dict()
    again = EmbedDistill().build_student(
        vector_encoder(3, seed=9), FrozenTeacher(vector_encoder(4, seed=5))
    )
    again.double().load_state_dict(state)
    queries = vectors(7, 8, seed=3)
    assert torch.equal(again.embed(queries, "query"), student.embed(queries, "query"))


def test_the_student_takes_over_the_scaling_of_the_teacher() -> None:
    teacher = FrozenTeacher(vector_encoder(4, seed=5, normalized=True))
    student = vector_encoder(4, seed=6, normalized=False)
    built = EmbedDistill(inherit_documents=False).build_student(student, teacher)
    assert isinstance(built, ProjectedEncoder)
    assert built.projection is None
    assert built.normalized
    both = vector_encoder(4, seed=6)
    assert EmbedDistill(inherit_documents=False).build_student(both, teacher) is both


def test_a_projection_can_start_at_least_squares() -> None:
    corpus, table = collection("q", 30, width=6)
    teacher = FrozenTeacher(table)
    torch.manual_seed(0)
    matrix = torch.randn(6, 3)
    own = {text: (torch.tensor(v) @ matrix).tolist() for text, v in table.vectors.items()}
    method = EmbedDistill(projection="lstsq")
    student = method.build_student(TableEncoder(own), teacher)

    class Data:
        queries = corpus

        def collections(self) -> list[Any]:
            return [(corpus, "query")]

    assert isinstance(student, InheritedDocuments)
    items = list(corpus.items)
    before = embed_matching_loss(student.embed(items, "query"), table.embed(items, "query"))
    method.build_data(Data(), teacher)
    outputs = [Output(network(items)) for network in (student, table)]
    method.setup(Step(*outputs, Batch({"inputs": items}), torch.sum), teacher)
    after = embed_matching_loss(student.embed(items, "query"), table.embed(items, "query"))
    assert after < 0.9 * before
    assert "_student" not in method.state_dict()


# ---- cross-encoders ----


def pair_step(teacher: dict[str, Tensor], requires_grad: bool = True) -> Step:
    student = {"queries": vectors(4, 3, seed=1), "documents": vectors(8, 3, seed=2)}
    for value in student.values():
        value.requires_grad_(requires_grad)
    batch = Batch({"inputs": None})
    return Step(Output(student), Output(teacher, role="teacher"), batch, torch.sum)


def test_a_cross_encoder_teaches_the_scores_of_each_querys_own_documents() -> None:
    step = pair_step({"scores": vectors(4, 2, seed=3)})
    method = EmbedDistill(embed_weight=0.0, inherit_documents=False, student_temperature=1.0)
    method.setup(step, NoTeacher())
    student = step.student.output
    own = student["documents"].view(4, 2, 3)
    scores = (student["queries"].unsqueeze(1) * own).sum(2)
    loss = score_distillation_loss(
        scores.float(), step.teacher.output["scores"].float(), teacher_temperature=0.05
    )
    assert_close(method(step)["embed_distill/score"], loss, 1e-5)


def test_a_cross_encoder_without_dual_pooling_has_nothing_to_match() -> None:
    method = EmbedDistill(inherit_documents=False)
    with pytest.raises(UserError, match="scores pairs and gives no vectors"):
        method.setup(pair_step({"scores": vectors(4, 2)}), NoTeacher())


def test_dual_pooled_pairs_are_matched() -> None:
    teacher = {
        "scores": vectors(4, 2, seed=3),
        "queries": vectors(4, 2, 3, seed=4),
        "documents": vectors(4, 2, 3, seed=5),
    }
    step = pair_step(teacher)
    method = EmbedDistill(inherit_documents=False)
    method.setup(step, NoTeacher())
    terms = method(step)
    student = step.student.output
    query = embed_matching_loss(student["queries"], teacher["queries"][:, 0])
    document = embed_matching_loss(student["documents"], teacher["documents"].view(8, 3))
    assert_close(terms["embed_distill/query"], query, 1e-12)
    assert_close(terms["embed_distill/document"], document, 1e-12)


# ---- two ranks ----


def gradients_on_rank(rank: int) -> dict[str, Tensor]:
    """Return the gradients of one rank's half of a batch, averaged over ranks."""
    found = {}
    for name, method in rank_methods().items():
        distiller = distilled(method, share(vector_batch(8, 2, 4), rank))
        parallel = DistributedDataParallel(distiller)
        sum(parallel(share(vector_batch(8, 2, 4), rank)).values()).backward()
        found[name] = torch.cat([p.grad.flatten() for p in distiller.student.parameters()])
    return found


def rank_methods() -> dict[str, Method]:
    shares = {"generated": 0.5}
    return {
        "direct": Baseline(),
        "own": EmbedDistill(inherit_documents=False, shares=shares),
        "inherited": EmbedDistill(shares=shares, form="ce"),
    }


def share(batch: Batch, rank: int) -> Batch:
    """Return what the loader gives one of two ranks: every second query of either kind."""
    count = batch["num_labeled"]
    labeled = torch.arange(count)[rank::2]
    rows = torch.cat([labeled, torch.arange(count, len(batch.ids))[rank::2]])
    documents = (labeled.unsqueeze(1) * 2 + torch.arange(2)).flatten()
    return Batch(
        {
            "inputs": batch.inputs[rows],
            "documents": batch["documents"][documents],
            "document_groups": batch["document_groups"][documents],
            "labels": batch.labels[rows],
            "num_labeled": len(labeled),
            "ids": batch.ids[rows],
        }
    )


def test_two_ranks_give_the_gradient_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    both = two_ranks(gradients_on_rank, tmp_path)
    batch = vector_batch(8, 2, 4)
    for name, method in rank_methods().items():
        distiller = distilled(method, batch)
        sum(distiller(batch).values()).backward()
        whole = torch.cat([p.grad.flatten() for p in distiller.student.parameters()])
        assert whole.abs().max() > 0
        for gradients in both:
            assert_close(gradients[name], whole, 1e-12)


# ---- a batch in pieces ----


@pytest.mark.parametrize("name", ["direct", "own", "inherited"])
def test_candidates_are_those_of_the_whole_batch_when_it_runs_in_pieces(name: str) -> None:
    """Pieces of 12 queries, 4 of them generated, and of 16 documents are cut each by themselves."""
    batch = vector_batch(8, 2, 4)
    gradients = []
    for accumulate in (1, 3):
        distiller = distilled(rank_methods()[name], batch, accumulate=accumulate)
        sum(distiller(batch).values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in distiller.student.parameters()]))
    assert_close(gradients[1], gradients[0], 1e-12)


# ---- mistakes ----


@pytest.mark.parametrize("form", ["kl", "ce", "margin_mse"])
@pytest.mark.parametrize("inherits", [True, False])
def test_a_batch_without_labeled_queries_costs_nothing(form: Any, inherits: bool) -> None:
    method = EmbedDistill(form=form, inherit_documents=inherits, shares={"generated": 1.0})
    distiller = distilled(method, vector_batch(generated=3))
    terms = distiller(vector_batch(count=0, generated=3))
    for name in ("task", "embed_distill/score", "embed_distill/query"):
        assert terms[name].item() == 0
        assert terms[name].requires_grad
    assert terms["embed_distill/generated"].item() > 0
    sum(terms.values()).backward()
    gradients = [p.grad for p in distiller.student.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="the weights of EmbedDistill are finite numbers from 0"):
        EmbedDistill(embed_weight=-1.0)
    with pytest.raises(UserError, match="teacher_temperature of EmbedDistill must be positive"):
        EmbedDistill(teacher_temperature=0.0)
    with pytest.raises(UserError, match="form is 'kl'"):
        EmbedDistill(form="mse")
    with pytest.raises(UserError, match=r"one teacher that encodes documents.*got no network"):
        EmbedDistill().build_student(vector_encoder(4, 0), NoTeacher())
    batch = vector_batch()
    step = Step(Output(torch.ones(2, 3)), Output(torch.ones(2, 3)), batch, torch.sum)
    with pytest.raises(UserError, match="distills scores of documents, but the student's output"):
        EmbedDistill()(step)
    step = Step(Output(torch.ones(2, 3)), Output(torch.ones(2, 4)), batch, torch.sum)
    with pytest.raises(UserError, match="student 3, teacher 4: pass a projection"):
        EmbedDistill().setup(step, NoTeacher())
    with pytest.raises(UserError, match="no generated queries, though EmbedDistill has shares"):
        distilled(EmbedDistill(shares={"generated": 1.0}), batch)
    uneven = batch.with_fields({"documents": vectors(7, 8)})
    with pytest.raises(UserError, match="7 documents for 6 queries"):
        distilled(EmbedDistill(), uneven)


def test_a_scaling_on_one_side_only_is_said() -> None:
    unit = nn.functional.normalize(torch.randn(4, 3))
    step = Step(Output(3 * unit), Output(unit), vector_batch(), torch.sum)
    with pytest.warns(UserWarning, match="only the teacher's query vectors have length 1"):
        EmbedDistill(score_weight=0.0).setup(step, NoTeacher())


def test_half_precision_scores_are_computed_in_float32() -> None:
    method = EmbedDistill(inherit_documents=False)
    teacher = FrozenTeacher(vector_encoder(64, seed=5).float())
    student = method.build_student(vector_encoder(64, seed=6).float(), teacher)
    distiller = Distiller(student, teacher, method, Retrieval())
    fields = {n: v.float() for n, v in vector_batch().items() if n in ("inputs", "documents")}
    batch = vector_batch().with_fields(fields)
    distiller.setup(batch)
    exact = distiller(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = distiller(batch)
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert rounded[name].item() == pytest.approx(value.item(), rel=0.1), name


def test_a_dual_encoder_of_your_own_is_a_few_lines() -> None:
    class Mine(DualEncoder):
        dim = 2
        normalized = False

        def embed(self, items: Any, role: str) -> Tensor:
            return torch.tensor([[len(text), float(role == "query")] for text in items])

    assert Mine()(["ab"], ["abc"])["documents"].tolist() == [[3.0, 0.0]]
    with pytest.raises(UserError, match="Mine has no fingerprint"):
        Mine().fingerprint()

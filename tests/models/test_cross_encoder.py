"""Cross-encoders of random weights, in the files of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.helpers.texts import write_bert, write_word_vectors
from tutelage import Batch, Distiller, FrozenTeacher
from tutelage.errors import UserError
from tutelage.methods import EmbedDistill
from tutelage.methods.embed_distill import dual_pooling
from tutelage.models import CrossEncoder, StaticEncoder
from tutelage.tasks import Retrieval

pytest.importorskip("transformers")

QUERIES = ["lift of a wing", "hot plate", "shock wave"]
DOCUMENTS = [
    "the swept wing at high speed",
    "heat flow in a thin layer",
    "a plate",
    "rough jet in cold flow past a blunt rotor",
    "pressure of a shock",
    "smooth laminar layer",
]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bert(tmp_path_factory.mktemp("models") / "classifier", labels=1))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bert(tmp_path_factory.mktemp("models") / "encoder"))


@torch.no_grad()
def test_scores_are_the_logits_of_each_querys_own_documents(classifier: str) -> None:
    network = CrossEncoder(classifier, batch_size=4).eval()
    scores = network(QUERIES, DOCUMENTS)["scores"]
    assert scores.shape == (3, 2)
    for row, query in enumerate(QUERIES):
        for column in range(2):
            tokens = network._tokenizer(query, DOCUMENTS[2 * row + column], return_tensors="pt")
            expected = network.model(**tokens).logits.item()
            assert scores[row, column].item() == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_it_agrees_with_sentence_transformers(classifier: str) -> None:
    library = pytest.importorskip("sentence_transformers")
    other = library.CrossEncoder(classifier, device="cpu", activation_fn=torch.nn.Identity())
    pairs = [(QUERIES[row // 2], text) for row, text in enumerate(DOCUMENTS)]
    expected = other.predict(pairs, convert_to_tensor=True, show_progress_bar=False)
    scores = CrossEncoder(classifier).eval()(QUERIES, DOCUMENTS)["scores"]
    torch.testing.assert_close(scores.flatten(), expected.flatten().float(), atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_pooled_vectors_are_those_of_the_segments(pooling: str, encoder: str) -> None:
    network = CrossEncoder(encoder, pooling=pooling).eval()  # type: ignore[arg-type]
    output = network(QUERIES[:1], DOCUMENTS[:2])
    assert output["queries"].shape == output["documents"].shape == (1, 2, 16)
    for column, document in enumerate(DOCUMENTS[:2]):
        tokens = network._tokenizer(QUERIES[0], document, return_tensors="pt")
        states = network.model(**tokens).last_hidden_state
        # [CLS] query [SEP] document [SEP]
        first, last = (tokens["input_ids"][0] == network._tokenizer.sep_token_id).nonzero()
        segments = torch.zeros(1, states.shape[1], dtype=torch.int64)
        segments[0, 1:first] = 1
        segments[0, first + 1 : last] = 2
        u, v = dual_pooling(states, segments, pooling=pooling)  # type: ignore[arg-type]
        torch.testing.assert_close(output["queries"][:, column], u)
        torch.testing.assert_close(output["documents"][:, column], v)
        torch.testing.assert_close(output["scores"][:, column], (u * v).sum(1))


def distilled(teacher: CrossEncoder, method: EmbedDistill, folder: Path) -> dict[str, Tensor]:
    student = StaticEncoder(str(write_word_vectors(folder)), normalized=False)
    fields = {
        "inputs": QUERIES,
        "documents": DOCUMENTS,
        "document_groups": torch.arange(6),
        "num_labeled": 3,
        "ids": torch.arange(3),
    }
    distiller = Distiller(student, FrozenTeacher(teacher), method, Retrieval(temperature=1.0))
    distiller.setup(Batch(fields))
    terms: dict[str, Tensor] = distiller(Batch(fields))
    sum(terms.values()).backward()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)
    return terms


def test_it_teaches_scores(classifier: str, tmp_path: Path) -> None:
    method = EmbedDistill(inherit_documents=False, embed_weight=0.0, form="margin_mse")
    terms = distilled(CrossEncoder(classifier), method, tmp_path)
    assert list(terms) == ["task", "embed_distill/score"]
    assert terms["embed_distill/score"].item() > 0


def test_with_dual_pooling_it_teaches_vectors(encoder: str, tmp_path: Path) -> None:
    method = EmbedDistill(inherit_documents=False, student_temperature=1.0, teacher_temperature=1.0)
    terms = distilled(CrossEncoder(encoder, pooling="mean"), method, tmp_path)
    names = ["task", "embed_distill/score", "embed_distill/query", "embed_distill/document"]
    assert list(terms) == names


def test_long_documents_are_cut_and_long_queries_named(encoder: str) -> None:
    network = CrossEncoder(encoder, pooling="mean").eval()
    assert network.max_length == 64
    with torch.no_grad():
        scores = network(QUERIES[:1], ["wing " * 200])["scores"]
    assert bool(scores.isfinite().all())
    with pytest.raises(UserError, match="pairs cannot be cut to 64 tokens"):
        network(["wing " * 200], DOCUMENTS[:1])


def test_mistakes_are_named(classifier: str, encoder: str, tmp_path: Path) -> None:
    network = CrossEncoder(classifier)
    with pytest.raises(UserError, match="3 queries and 5 documents; give every query the same"):
        network(QUERIES, DOCUMENTS[:5])
    with pytest.raises(UserError, match="3 queries and 0 documents"):
        network(QUERIES)
    with pytest.raises(UserError, match="takes a list of texts, got a Tensor"):
        network(torch.ones(3, 2), DOCUMENTS)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="gives 2 labels and no single score"):
        CrossEncoder(str(write_bert(tmp_path / "two", labels=2)))
    with pytest.raises(UserError, match="transformers cannot open"):
        CrossEncoder(str(tmp_path))
    method = EmbedDistill(
        inherit_documents=False, embed_weight=0.0, form="margin_mse", shares={"generated": 1.0}
    )
    with pytest.raises(UserError, match="has no vectors for generated queries"):
        distilled(network, method, tmp_path / "words")

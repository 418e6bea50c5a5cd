"""Encoders of queries and documents, and how they are shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.texts import TableEncoder, write_sentence_transformer, write_word_vectors
from tutelage.core.collection import Collection
from tutelage.core.teacher import FrozenTeacher
from tutelage.errors import UserError
from tutelage.models import (
    InheritedDocuments,
    ProjectedEncoder,
    SentenceEncoder,
    StaticEncoder,
    TwoTowers,
    VectorEncoder,
)
from tutelage.models.text import ship

TEXTS = ["lift of a wing", "heat flow", "a shock wave at high speed", "", "zzz unknown"]
needs_sentence_transformers = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("sentence_transformers"),
    reason="sentence-transformers is not installed",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_word_vectors(tmp_path_factory.mktemp("static")))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("sentence_transformers")
    return str(write_sentence_transformer(tmp_path_factory.mktemp("bert") / "model"))


def reopened(folder: Path, texts: list[str]) -> torch.Tensor:
    """Return what a process that knows sentence-transformers alone gives for some texts."""
    script = (
        "import json, sys; from sentence_transformers import SentenceTransformer; "
        "model = SentenceTransformer(sys.argv[1], device='cpu'); "
        "print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist())); "
        "assert not any(name.startswith('tutelage') for name in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(folder), json.dumps(texts)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return torch.tensor(json.loads(answer.stdout.splitlines()[-1]))


def test_a_static_encoder_is_the_mean_of_word_vectors_and_two_layers(source: str) -> None:
    encoder = StaticEncoder(source, hidden=8, normalized=False)
    (vector,) = encoder.embed(["lift wing"], "query")
    vocabulary = encoder._tokenizer.get_vocab()
    mean = encoder.embedding.weight[[vocabulary["lift"], vocabulary["wing"]]].mean(0)
    first, _, last = encoder.layers
    torch.testing.assert_close(vector, last(nn.functional.gelu(first(mean))))
    (plain,) = StaticEncoder(source, hidden=None).embed(["lift wing"], "query")
    torch.testing.assert_close(plain, nn.functional.normalize(mean, dim=0))
    with pytest.raises(UserError, match="has width 16, not 4; set hidden"):
        StaticEncoder(source, hidden=None, dim=4)


def test_the_pieces_that_occur_are_kept_with_their_vectors(source: str) -> None:
    torch.manual_seed(0)
    whole = StaticEncoder(source)
    torch.manual_seed(0)
    cut = StaticEncoder(source)
    cut.adapt(["lift of a wing", "heat flow"])
    assert len(cut.pieces) == 7 < len(whole.pieces)
    texts = ["heat flow of a wing", "lift"]
    torch.testing.assert_close(cut.embed(texts, "query"), whole.embed(texts, "query"))
    # A word that is not known is one unknown piece, whatever pieces the whole vocabulary has of it.
    assert cut._tokenizer.encode("rotor", add_special_tokens=False).tokens == ["[UNK]"]


def test_weights_bring_their_vocabulary(source: str) -> None:
    first, second = StaticEncoder(source), StaticEncoder(source)
    first.adapt(["lift of a wing"])
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.embed(TEXTS, "query"), first.embed(TEXTS, "query"))


def test_rows_stay_in_order_though_long_texts_are_encoded_first(source: str) -> None:
    encoder = StaticEncoder(source)
    encoder.batch_size = 2
    together = encoder.encode(TEXTS, "query")
    for text, vector in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(vector, encoder.embed([text], "query")[0])


def test_a_forward_pass_gives_queries_and_documents(source: str) -> None:
    output = StaticEncoder(source)(["lift"], ["heat", "flow", "jet"])
    assert {name: tuple(value.shape) for name, value in output.items()} == {
        "queries": (1, 16),
        "documents": (3, 16),
    }
    assert set(StaticEncoder(source)(["lift"])) == {"queries"}
    assert StaticEncoder(source).embed([], "query").shape == (0, 16)
    assert StaticEncoder(source).embed([""], "query").isfinite().all()


def test_layers_prompts_and_length_of_a_sentence_encoder(bert: str) -> None:
    whole = SentenceEncoder(bert)
    few = SentenceEncoder(bert, layers=[0, 2], query_prompt="heat ", max_length=8)
    assert sum(p.numel() for p in few.parameters()) < sum(p.numel() for p in whole.parameters())
    few.eval()
    as_query, as_document = few.embed(["lift"], "query"), few.embed(["heat lift"], "document")
    torch.testing.assert_close(as_query, as_document)
    assert few.normalized
    assert whole.fingerprint() != few.fingerprint()
    assert whole.fingerprint() == SentenceEncoder(bert).fingerprint()
    with pytest.raises(UserError, match="no layer 3; the encoder has 0 to 2"):
        SentenceEncoder(bert, layers=[3])
    with pytest.raises(UserError, match="cannot open"):
        SentenceEncoder(str(Path(bert) / "nowhere/at/all"))
    with pytest.raises(UserError, match="the package nothing_here is not installed"):
        SentenceEncoder("package:nothing_here")


@needs_sentence_transformers
def test_a_shipped_static_student_opens_elsewhere(source: str, tmp_path: Path) -> None:
    student = ProjectedEncoder(StaticEncoder(source, dim=6), dim=10, normalized=True)
    student.adapt(["lift of a wing", "heat flow", "shock wave"])
    teacher = FrozenTeacher(StaticEncoder(source, dim=10))
    whole = InheritedDocuments(student, teacher)
    corpus = Collection("documents", ["a", "b"], ["lift", "heat"])
    whole.encode_collection(corpus, "document")
    ship.write_sentence_transformer(whole, tmp_path)
    torch.testing.assert_close(reopened(tmp_path, TEXTS), student.encode(TEXTS, "query"))
    card = (tmp_path / "README.md").read_text()
    assert "this document index only" in card
    assert corpus.digest in card
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["documents"] == 2
    assert index["encoder"] == teacher.model.fingerprint()


def test_a_shipped_transformer_opens_elsewhere(bert: str, tmp_path: Path) -> None:
    student = ProjectedEncoder(SentenceEncoder(bert, layers=[1]), dim=5, normalized=False)
    ship.write_sentence_transformer(student, tmp_path)
    torch.testing.assert_close(reopened(tmp_path, TEXTS), student.encode(TEXTS, "query"))
    assert "Documents are encoded by the same model" in (tmp_path / "README.md").read_text()


def test_inherited_documents_are_the_teachers_and_no_part_of_the_student(source: str) -> None:
    student = StaticEncoder(source)
    teacher = FrozenTeacher(StaticEncoder(source))
    whole = InheritedDocuments(student, teacher)
    assert len(list(whole.parameters())) == len(list(student.parameters()))
    assert all(name.startswith("query.") for name in whole.state_dict())
    whole.train()
    assert not teacher.model.training
    output = whole(["lift"], ["heat"])
    assert torch.equal(output["documents"], teacher.model.embed(["heat"], "document"))
    assert output["queries"].requires_grad
    assert not output["documents"].requires_grad


def test_another_index_than_before_is_refused(source: str) -> None:
    whole = InheritedDocuments(StaticEncoder(source), FrozenTeacher(StaticEncoder(source)))
    corpus = Collection("documents", ["a"], ["lift"])
    whole.encode_collection(corpus, "document")
    whole.encode_collection(corpus, "document")
    other = Collection("documents", ["a"], ["heat"])
    with pytest.raises(UserError, match="not those that the student was trained with"):
        whole.encode_collection(other, "document")
    with torch.no_grad():
        next(whole.documents.parameters()).add_(1.0)
    with pytest.raises(UserError, match="the teacher or the texts have changed"):
        whole.encode_collection(corpus, "document")


def test_a_projection_can_start_at_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [str(number) for number in range(40)]
    inputs = torch.randn(40, 3, generator=generator)
    matrix, shift = torch.randn(3, 5, generator=generator), torch.randn(5, generator=generator)
    encoder = TableEncoder(dict(zip(texts, inputs.tolist(), strict=True)))
    projected = ProjectedEncoder(encoder, dim=5, normalized=False)
    projected.fit(texts, inputs @ matrix + shift)
    torch.testing.assert_close(projected.embed(texts, "query"), inputs @ matrix + shift)
    assert ProjectedEncoder(encoder, dim=3, normalized=False).projection is None


def test_two_towers_and_ready_vectors(source: str) -> None:
    towers = TwoTowers(StaticEncoder(source), StaticEncoder(source))
    assert not torch.equal(towers.embed(["lift"], "query"), towers.embed(["lift"], "document"))
    with pytest.raises(UserError, match="width 16, the document tower of 4"):
        TwoTowers(StaticEncoder(source), StaticEncoder(source, dim=4))
    vectors = VectorEncoder(nn.Linear(8, 4), dim=4)
    assert vectors.encode(torch.ones(3, 8), "query").norm(dim=1).allclose(torch.ones(3))
    with pytest.raises(UserError, match="takes vectors"):
        vectors.embed(["a"], "query")
    with pytest.raises(UserError, match=r"gives .* but dim is 5"):
        VectorEncoder(nn.Linear(8, 4), dim=5).embed(torch.ones(3, 8), "query")
    with pytest.raises(UserError, match="takes a list of texts, got a Tensor"):
        StaticEncoder(source).embed(torch.ones(3, 8), "query")


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer.json is missing"):
        StaticEncoder(str(tmp_path))
    with pytest.raises(UserError, match="vocabulary is 'occurring' or 'all'"):
        StaticEncoder(str(tmp_path), vocabulary="some")

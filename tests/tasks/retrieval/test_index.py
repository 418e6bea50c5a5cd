"""The document index of a run: written, searched, and refused where it does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.texts import write_beir, write_sentence_transformer, write_word_vectors
from tutelage import UserError
from tutelage.cache import CachedEncoder
from tutelage.core import FrozenTeacher
from tutelage.data import Beir
from tutelage.models import InheritedDocuments, SentenceEncoder, StaticEncoder
from tutelage.tasks import Retrieval
from tutelage.tasks.retrieval import index as index_module
from tutelage.tasks.retrieval import search

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with documents and word vectors."""
    folder = tmp_path_factory.mktemp("texts")
    write_word_vectors(folder / "encoder")
    write_beir(folder / "data")
    return folder


def exported(source: Path, run: Path, inherit: bool) -> tuple[StaticEncoder, FrozenTeacher]:
    """Write what a run has for its use, of a student with documents of its own or inherited."""
    run.mkdir()
    torch.manual_seed(0)
    student = StaticEncoder(str(source / "encoder"))
    teacher = StaticEncoder(str(source / "encoder"), hidden=None)
    cached = FrozenTeacher(CachedEncoder(teacher, str(source / "cache")))
    parts = Beir(str(source / "data")).splits()
    model = InheritedDocuments(student, cached) if inherit else student
    model.encode_collection(parts["corpus"].corpus, "document")
    Retrieval().export(model, parts, run)
    return student, cached


@pytest.mark.parametrize("inherit", [False, True])
def test_the_best_documents_are_those_of_evaluation(
    source: Path, tmp_path: Path, inherit: bool
) -> None:
    student, teacher = exported(source, tmp_path / "run", inherit)
    corpus = Beir(str(source / "data")).contents().corpus
    documents = (teacher.model if inherit else student).encode(corpus.items, "document")
    answer = Retrieval().predictor(tmp_path / "run", 3)
    for query in ("lift wing", "hot plate of heat", "words that nobody knows"):
        found = search(student.encode([query], "query"), documents, 3)
        entries = answer(query).record["documents"]
        assert [entry["score"] for entry in entries] == pytest.approx(found.scores[0].tolist())
        for entry, row in zip(entries, found.documents[0].tolist(), strict=True):
            assert entry["id"] == corpus.ids[row]
            assert corpus.items[row].startswith(entry["text"].removesuffix(" …"))
    assert len(Retrieval().predictor(tmp_path / "run", 1000)("wing").record["documents"]) == 24
    with pytest.raises(UserError, match="the query is empty"):
        answer("  ")


def test_the_cache_of_the_teacher_is_an_index(source: Path, tmp_path: Path) -> None:
    exported(source, tmp_path / "run", True)
    before = Retrieval().predictor(tmp_path / "run", 2)("wing").record["documents"]
    shutil.rmtree(tmp_path / "run/index")
    with pytest.raises(UserError, match=r"index has no vectors of the documents.*copy or link"):
        Retrieval().predictor(tmp_path / "run", 2)
    (tmp_path / "run/index").symlink_to(source / "cache")
    linked = Retrieval().predictor(tmp_path / "run", 2)("wing").record["documents"]
    assert linked == [{"id": entry["id"], "score": entry["score"]} for entry in before]


def test_prompts_go_with_the_shipped_encoder(source: Path, tmp_path: Path) -> None:
    model = SentenceEncoder(
        str(write_sentence_transformer(tmp_path / "bert")),
        query_prompt="lift drag: ",
        document_prompt="hot plate: ",
    )
    parts = Beir(str(source / "data")).splits()
    (tmp_path / "run").mkdir()
    Retrieval().export(model, parts, tmp_path / "run")
    corpus = parts["corpus"].corpus
    found = search(model.encode(["wing"], "query"), model.encode(corpus.items, "document"), 4)
    entries = Retrieval().predictor(tmp_path / "run", 4)("wing").record["documents"]
    assert [entry["score"] for entry in entries] == pytest.approx(found.scores[0].tolist())
    from sentence_transformers import SentenceTransformer

    shipped = SentenceTransformer(str(tmp_path / "run/student"), device="cpu")
    own = model.encode(["wing"], "query")
    assert torch.allclose(torch.from_numpy(shipped.encode(["wing"])), own, atol=1e-6)


def test_an_index_of_something_else_is_refused(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    exported(source, run, False)
    record = run / "index/document-documents.json"
    content = json.loads(record.read_text())

    def refused(says: str) -> None:
        with pytest.raises(UserError, match=says):
            Retrieval().predictor(run, 2)

    record.write_text(json.dumps({**content, "fingerprint": {"weights": "others"}}))
    refused("has vectors of another encoder")
    record.write_text(json.dumps({**content, "digest": "others"}))
    refused("has vectors of other documents")
    record.write_text("{")
    refused("is not whole")
    record.write_text(json.dumps(content))
    array = run / "index/document-documents.npy"
    vectors = np.load(array)
    np.save(array, vectors[:5])
    refused("different numbers of documents")
    np.save(array, vectors)
    ids = run / "index/document-documents.ids.json"
    names = ids.read_text()
    ids.write_text(json.dumps(json.loads(names)[::-1]))
    refused("has other ids than the vectors were stored with")
    ids.write_text(names)
    np.save(array, vectors[:, :5])
    refused("queries get vectors of width 16")
    array.write_bytes(b"nothing")
    refused("is damaged")
    np.save(array, vectors)
    (run / "student/modules.json").write_text("{")
    refused("student cannot be opened")
    (run / "student/index.json").unlink()
    refused("index.json is missing")
    shutil.rmtree(run / "student")
    refused("student is missing, which encodes queries")


def test_a_large_index_is_not_stored_twice(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(index_module, "MAX_BYTES", 1000)
    exported(source, tmp_path / "run", True)
    assert not (tmp_path / "run/index").exists()
    assert "index is not written, since the vectors of 24 documents" in capsys.readouterr().err

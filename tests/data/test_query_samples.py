"""Batches of queries with documents, streams of generated queries, and the cut into parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.texts import write_beir
from tutelage.core.collection import Collection, Judgments
from tutelage.data import Beir, QuerySamples
from tutelage.data.generated_queries import Documents, generate_queries
from tutelage.engine.loader import EpochSampler, training_loader
from tutelage.errors import UserError

CORPUS = Collection("documents", ["a", "b", "c", "d"], ["wing", "plate", "wing", "jet"])
QUERIES = Collection("train", ["q0", "q1", "q2"], ["lift", "heat", "noise"])
JUDGMENTS = Judgments.of([(0, 0, 1), (1, 1, 2), (1, 3, 1), (2, 3, 1), (2, 0, 0)])


def keys(*positions: int, epoch: int = 0) -> list[tuple[int, int]]:
    return [(epoch, position) for position in positions]


def test_a_batch_has_queries_with_their_documents() -> None:
    batch = QuerySamples(CORPUS, QUERIES, JUDGMENTS).batch(keys(2, 0))
    assert batch.inputs == ["noise", "lift"]
    assert batch["documents"] == ["jet", "wing"]
    assert batch.labels.tolist() == [3, 0]
    assert batch["document_groups"].tolist() == [2, 0]
    assert batch["num_labeled"] == 2


def test_one_of_several_relevant_documents_is_drawn_in_each_epoch() -> None:
    samples = QuerySamples(CORPUS, QUERIES, JUDGMENTS, seed=1)
    drawn = [samples.batch(keys(1, epoch=epoch)).labels.item() for epoch in range(20)]
    assert set(drawn) == {1, 3}
    again = QuerySamples(CORPUS, QUERIES, JUDGMENTS, seed=1)
    assert drawn == [again.batch(keys(1, epoch=epoch)).labels.item() for epoch in range(20)]


def test_further_documents_of_a_query_are_not_relevant() -> None:
    samples = QuerySamples(CORPUS, QUERIES, JUDGMENTS, documents_per_query=3)
    for epoch in range(10):
        batch = samples.batch(keys(1, 0, epoch=epoch))
        assert len(batch["documents"]) == 6
        own = set(batch["documents"][1:3])
        assert not own & {"plate", "jet"}
        assert batch["documents"][3] == "wing"
    greedy = QuerySamples(CORPUS, QUERIES, JUDGMENTS, documents_per_query=9)
    with pytest.raises(UserError, match="is 9, but the corpus has 4 documents"):
        greedy.batch(keys(0))


def test_generated_queries_join_every_batch_behind_the_others() -> None:
    pool = Collection("generated", ["g0", "g1", "g2", "g3"], ["x", "y", "z", "w"])
    samples = QuerySamples(CORPUS, QUERIES, JUDGMENTS, pools={"generated": pool})
    joined = samples.with_streams({"generated": 1.0})
    assert (len(samples), len(joined)) == (3, 7)
    sampler = EpochSampler.over(joined, 2, seed=0)
    assert len(sampler) == 1
    seen = []
    for epoch in range(2):
        sampler.epoch = epoch
        for batch in training_loader(joined, sampler, 0):
            assert batch["num_labeled"] == 2
            assert batch.labels[2:].tolist() == [-100, -100]
            assert len(batch["documents"]) == 2
            assert len(batch.inputs) == 4
            seen += batch.inputs[2:]
    assert sorted(seen) == ["w", "x", "y", "z"]
    names = [collection.name for collection, _ in joined.collections()]
    assert names == ["documents", "train", "generated"]
    assert not joined.subset([0, 1]).streams
    with pytest.raises(UserError, match=r"no generated queries 'generate'; did you mean"):
        samples.with_streams({"generate": 1.0})


def test_queries_are_made_of_documents_and_never_equal_a_test_query() -> None:
    documents = Documents(
        ids=["a", "b", "c"],
        titles=["Lift of swept wings", "", "On heat"],
        texts=[
            "we measure lift at low speed. the wing is thin and swept. done.",
            "a plate is heated . the heat flows into the cold layer .",
            "",
        ],
    )
    made = generate_queries(
        documents,
        ["title", "first_sentence", "random_sentence", "random_sentence", "tfidf"],
        name="train",
        excluded=["lift of SWEPT wings?"],
    )
    assert made.queries.ids[:2] == ["first_sentence-0-a", "first_sentence-0-b"]
    assert made.queries.items[0] == "we measure lift at low speed"
    assert "Lift of swept wings" not in made.queries.items
    assert all(
        query.split("-")[0] in ("random_sentence", "tfidf") for query in made.queries.ids[2:]
    )
    assert made.dropped["equal to a test query"] == 1
    assert made.dropped["too short"] == 6
    pairs = list(zip(made.documents, made.queries.items, strict=True))
    assert len(set(pairs)) == len(pairs)
    again = generate_queries(documents, ["random_sentence"], name="train", seed=0)
    assert (
        again.queries.items
        == generate_queries(documents, ["random_sentence"], name="train", seed=0).queries.items
    )
    with pytest.raises(UserError, match="no generator 'titles'"):
        generate_queries(documents, ["titles"], name="train")
    with pytest.raises(UserError, match="no query could be made"):
        generate_queries(Documents(["a"], [""], [""]), ["title"], name="train")


def test_the_parts_of_the_files_are_taken(tmp_path: Path) -> None:
    parts = Beir(str(write_beir(tmp_path))).splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 48,
        "validation": 24,
        "test": 24,
        "corpus": 24,
    }
    assert parts["test"].batch(keys(0)).keys() == {"inputs", "ids", "num_labeled"}
    assert parts["corpus"].batch(keys(3)).ids.tolist() == [3]


def test_parts_that_are_not_there_are_generated_or_cut(tmp_path: Path) -> None:
    root = str(write_beir(tmp_path, train=False))
    parts = Beir(root, validation=0.25).splits()
    total = len(parts["train"]) + len(parts["validation"])
    assert len(parts["validation"]) == round(0.25 * total)
    train, held_out = set(parts["train"].rows.tolist()), set(parts["validation"].rows.tolist())
    assert not train & held_out
    test_texts = set(parts["test"].queries.items)
    assert not test_texts & set(parts["train"].queries.items)
    judged = Beir(root, judged_validation=0.25).splits()
    assert (len(judged["validation"]), len(judged["test"])) == (6, 18)
    assert judged["validation"].queries is judged["test"].queries
    few = Beir(root).splits(num_labels=10, seed=1)
    assert len(few["train"]) == 10
    other = Beir(root).splits(num_labels=10, seed=2)
    assert few["train"].rows.tolist() != other["train"].rows.tolist()
    with pytest.raises(UserError, match="num_labels is 5000"):
        Beir(root).splits(num_labels=5000)
    with pytest.raises(UserError, match=r"data\.validation is a share"):
        Beir(root, validation=1.5).splits()


def test_a_query_without_a_relevant_document_is_left_out_of_training(tmp_path: Path) -> None:
    root = write_beir(tmp_path)
    path = root / "qrels/train.tsv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:-1] + "0"
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="1 of 48 training queries have no relevant document"):
        parts = Beir(str(root)).splits()
    assert len(parts["train"]) == 47


def test_ready_vectors_are_batched_as_tensors() -> None:
    corpus = Collection("documents", ["a", "b"], torch.eye(2))
    queries = Collection("train", ["q"], torch.ones(1, 2))
    samples = QuerySamples(corpus, queries, Judgments.of([(0, 1, 1)]))
    batch = samples.batch(keys(0))
    assert torch.equal(batch["documents"], torch.tensor([[0.0, 1.0]]))
    assert corpus.digest != Collection("documents", ["a", "b"], 2 * torch.eye(2)).digest

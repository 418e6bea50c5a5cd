"""Ready vectors in files, read, damaged, and trained on from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.texts import collection, write_lines
from tutelage.cache import CachedEncoder
from tutelage.data import VectorFiles
from tutelage.engine import fit
from tutelage.errors import UserError
from tutelage.methods import EmbedDistill
from tutelage.models import VectorEncoder
from tutelage.recipes.config import Recipe, StudentConfig, TeacherConfig, TrainConfig
from tutelage.tasks import Retrieval

HEADER = "query-id\tcorpus-id\tscore"


def write_vectors(root: Path, count: int = 40, width: int = 8) -> Path:
    """Write documents, and for each a query near it; a half trains, a quarter is tested."""
    generator = np.random.default_rng(0)
    documents = generator.normal(size=(count, width)).astype("float32")
    queries = documents + 0.1 * generator.normal(size=documents.shape)
    root.mkdir(parents=True, exist_ok=True)
    for name, array in (("documents", documents), ("queries", queries.astype("float16"))):
        np.save(root / f"{name}.npy", array)
        ids = [f"{name[0]}{row}" for row in range(count)]
        (root / f"{name}.ids.json").write_text(json.dumps(ids))
    cuts = {"train": range(count // 2), "test": range(count // 2, 3 * count // 4)}
    for part, rows in cuts.items():
        lines = [HEADER, *(f"q{row}\td{row}\t1" for row in rows)]
        write_lines(root / "qrels" / f"{part}.tsv", lines)
    return root


def test_parts_hold_the_vectors_of_their_queries(tmp_path: Path) -> None:
    root = write_vectors(tmp_path)
    with pytest.warns(UserWarning, match=r"queries\.npy: 10 queries without judgments"):
        parts = VectorFiles(str(root), validation=0.2).splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 16,
        "validation": 4,
        "test": 10,
        "corpus": 40,
    }
    batch = parts["test"].batch([(0, 3)])
    expected = torch.from_numpy(np.load(root / "queries.npy")[23].astype("float32"))
    assert torch.equal(batch.inputs[0], expected)
    train = parts["train"].batch([(0, 5)])
    row = int(train["labels"][0])
    assert torch.equal(train["documents"][0], parts["corpus"].corpus.items[row])
    assert parts["train"].queries.ids[int(parts["train"].rows[5])] == f"q{row}"


def test_files_of_a_cache_are_read(tmp_path: Path) -> None:
    corpus, encoder = collection("documents", 12)
    queries, more = collection("queries", 12, seed=1)
    encoder.vectors.update(more.vectors)
    CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document"), (queries, "query")])
    for part, rows in (("train", range(6)), ("test", range(6, 12))):
        lines = [HEADER, *(f"queries{row}\tdocuments{row}\t1" for row in rows)]
        write_lines(tmp_path / "qrels" / f"{part}.tsv", lines)
    data = VectorFiles(
        str(tmp_path), documents="document-documents.npy", queries="query-queries.npy"
    )
    contents = data.contents()
    assert list(contents.corpus.ids) == list(corpus.ids)
    expected = torch.tensor([encoder.vectors[text] for text in corpus.items])
    assert torch.equal(contents.corpus.items, expected)


@pytest.mark.filterwarnings("ignore:.*queries without judgments")
def test_a_student_of_vectors_is_trained_and_evaluated(tmp_path: Path) -> None:
    root = write_vectors(tmp_path / "data")
    torch.manual_seed(0)
    recipe = Recipe(
        data=VectorFiles(str(root), validation=0.2),
        task=Retrieval(),
        teacher=TeacherConfig(model=VectorEncoder(nn.Linear(8, 8), dim=8)),
        student=StudentConfig(model=VectorEncoder(nn.Linear(8, 4), dim=4)),
        method=EmbedDistill(embed_weight=5.0),
        train=TrainConfig(epochs=30, batch_size=8, gradient_cap=None, eval_every=10),
    )
    torch.nn.init.eye_(recipe.teacher.model.query.weight)  # type: ignore[union-attr]
    torch.nn.init.zeros_(recipe.teacher.model.query.bias)  # type: ignore[union-attr]
    metrics = fit(recipe, tmp_path / "run")
    assert metrics is not None
    assert metrics["test"]["teacher_ndcg@10"] == 1
    assert metrics["test"]["num_documents"] == 40
    records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    first, last = (record["terms"]["embed_distill/query"] for record in (records[0], records[-1]))
    assert last < 0.95 * first
    assert json.loads((tmp_path / "run/student.json").read_text())["inputs"] == "vectors"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", r"documents\.npy is missing; give a folder"),
        ("text", r"documents\.npy cannot be read as an array"),
        ("objects", r"documents\.npy cannot be read as an array"),
        ("integers", r"documents\.npy holds int64 \(40, 8\) and no vectors"),
        ("flat", r"documents\.npy holds float64 \(40,\) and no vectors"),
        ("empty", r"documents\.npy holds no vector"),
        ("nan", r"documents\.npy, row 3, holds NaN or infinity"),
        ("fewer ids", r"documents\.ids\.json names 39 rows, but its array has 40"),
        ("twice", r"the id 'd0' is given twice, in entries 1 and 2"),
        ("no list", r"documents\.ids\.json is no list of texts"),
        ("no json", r"documents\.ids\.json cannot be read as JSON"),
        ("no train", r"train\.tsv is missing, and queries cannot be generated from vectors"),
        ("no test", r"test\.tsv is missing"),
        ("other ids", r"no judgment fits a query and a document"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*judgments of unknown")
def test_damage_is_named(damage: str, says: str, tmp_path: Path) -> None:
    root = write_vectors(tmp_path)
    array, ids = root / "documents.npy", root / "documents.ids.json"
    vectors, names = np.load(array), json.loads(ids.read_text())
    if damage in ("missing", "no train", "no test"):
        path = array if damage == "missing" else root / "qrels" / f"{damage.split()[1]}.tsv"
        path.unlink()
    elif damage == "text":
        array.write_text("no array")
    elif damage == "objects":
        np.save(array, np.array([{}]), allow_pickle=True)
    elif damage == "nan":
        vectors[3, 2] = np.nan
        np.save(array, vectors)
    elif damage in ("integers", "flat", "empty"):
        others = {"integers": np.ones((40, 8), "int64"), "flat": np.ones(40), "empty": vectors[:0]}
        np.save(array, others[damage])
    else:
        texts = {
            "fewer ids": json.dumps(names[1:]),
            "twice": json.dumps(["d0", *names[:39]]),
            "no list": "{}",
            "no json": "[",
            "other ids": json.dumps([f"other{name}" for name in names]),
        }
        ids.write_text(texts[damage])
    with pytest.raises(UserError, match=says):
        VectorFiles(str(root)).contents()


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    root = write_vectors(tmp_path)
    for name in ("documents", "queries"):
        (root / f"{name}.ids.json").unlink()
    for part in ("train", "test"):
        path = root / "qrels" / f"{part}.tsv"
        write_lines(path, path.read_text().replace("q", "").replace("d", "").splitlines()[1:])
    with pytest.warns(UserWarning, match="10 queries without judgments"):
        contents = VectorFiles(str(root)).contents()
    assert contents.parts["test"].queries.ids[0] == "20"

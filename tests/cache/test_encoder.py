"""Vectors in files: made once, mapped, resumed, and refused where they do not fit."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.texts import TableEncoder, collection
from tutelage.cache import CachedEncoder, StoredRows
from tutelage.core.collection import Collection
from tutelage.errors import UserError

FILES = ["document-c.ids.json", "document-c.json", "document-c.npy"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_collection_is_encoded_once_and_row_i_belongs_to_id_i(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 50)
    cached = CachedEncoder(encoder, str(tmp_path))
    vectors = cached.encode_collection(corpus, "document")
    assert len(encoder.asked) == 50
    for text, vector in zip(corpus.items, vectors, strict=True):
        torch.testing.assert_close(vector, torch.tensor(encoder.vectors[text]))
    assert names(tmp_path) == FILES
    again = CachedEncoder(encoder, str(tmp_path))
    assert torch.equal(again.encode_collection(corpus, "document"), vectors)
    assert len(encoder.asked) == 50
    assert json.loads((tmp_path / "document-c.ids.json").read_text()) == list(corpus.ids)


def test_texts_are_looked_up_and_others_encoded(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 10)
    other, more = collection("other", 3, seed=1)
    encoder.vectors.update(more.vectors)
    cached = CachedEncoder(encoder, str(tmp_path))
    cached.prepare([(corpus, "document")])
    encoder.asked.clear()
    texts = [corpus.items[7], other.items[0], corpus.items[2]]
    found = cached.embed(texts, "document")
    torch.testing.assert_close(found, torch.tensor([encoder.vectors[text] for text in texts]))
    assert encoder.asked == [other.items[0]]
    assert not found.requires_grad
    cached.embed(texts[:1], "query")  # documents' vectors are not those of queries
    assert encoder.asked[1:] == texts[:1]


def test_texts_of_no_collection_are_encoded_once_and_not_stored(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 10)
    cached = CachedEncoder(encoder, str(tmp_path / "cache"))
    texts = [*corpus.items[:3], corpus.items[0]]
    first = cached.embed(texts, "query")
    assert sorted(encoder.asked) == sorted(corpus.items[:3])
    assert torch.equal(cached.embed(texts[1:], "query"), first[1:])
    assert len(encoder.asked) == 3
    cached.use_stored([(corpus, "query")])
    assert not (tmp_path / "cache").exists()
    assert len(encoder.asked) == 3


def test_the_memory_for_further_texts_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.cache.encoder.MAX_FURTHER", 4)
    corpus, encoder = collection("c", 10)
    cached = CachedEncoder(encoder, str(tmp_path))
    cached.embed(corpus.items[:3], "query")
    for _ in range(2):
        found = cached.embed(corpus.items, "query")
        expected = torch.tensor([encoder.vectors[text] for text in corpus.items])
        torch.testing.assert_close(found, expected)
    assert len(encoder.asked) == 3 + 7 + 7


def test_stored_vectors_are_used_and_checked_without_encoding(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 10)
    CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document")])
    encoder.asked.clear()
    cached = CachedEncoder(encoder, str(tmp_path))
    cached.use_stored([(corpus, "document"), (corpus, "query")])
    cached.embed(corpus.items, "document")
    assert encoder.asked == []
    half = CachedEncoder(encoder, str(tmp_path), dtype="float16")
    with pytest.raises(UserError, match="holds float32 numbers and not float16"):
        half.use_stored([(corpus, "document")])


def test_encoding_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, encoder = collection("c", 100)
    encoder.batch_size = 10
    monkeypatch.setattr("tutelage.cache.stored_rows.SAVE_EVERY", 20)
    embed = encoder.embed

    def fail_at_70(items: Any, role: str) -> Any:
        if len(encoder.asked) >= 70:
            raise KeyboardInterrupt
        return embed(items, role)

    monkeypatch.setattr(encoder, "embed", fail_at_70)
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(encoder, str(tmp_path)).encode_collection(corpus, "document")
    assert names(tmp_path) == ["document-c.npy.partial", "document-c.progress.json"]
    half = CachedEncoder(encoder, str(tmp_path), dtype="float16")
    with pytest.raises(
        UserError, match=r"npy.partial was begun otherwise: .*dtype.* to begin anew"
    ):
        half.encode_collection(corpus, "document")
    monkeypatch.setattr(encoder, "embed", embed)
    encoder.asked.clear()
    vectors = CachedEncoder(encoder, str(tmp_path)).encode_collection(corpus, "document")
    assert len(encoder.asked) == 40  # 60 of 70 were saved
    expected = torch.tensor([encoder.vectors[text] for text in corpus.items])
    torch.testing.assert_close(vectors, expected)
    assert names(tmp_path) == FILES


def test_a_cache_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 10)
    CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document")])

    class Prompted(TableEncoder):
        def fingerprint(self) -> dict[str, Any]:
            return {**super().fingerprint(), "prompt": "passage: "}

    other = Prompted(encoder.vectors)
    with pytest.raises(UserError, match=r"document-c.npy was made by another teacher: prompt None"):
        CachedEncoder(other, str(tmp_path)).prepare([(corpus, "document")])
    texts = [*corpus.items[:9], corpus.items[0]]
    changed = Collection("c", corpus.ids, texts)
    with pytest.raises(
        UserError, match=r"document-c.npy holds 10 rows of other items than the 10 of the data"
    ):
        CachedEncoder(encoder, str(tmp_path)).prepare([(changed, "document")])
    renamed = Collection("c", [f"{name}!" for name in corpus.ids], corpus.items)
    with pytest.raises(UserError, match="their content, ids or order differ"):
        CachedEncoder(encoder, str(tmp_path)).prepare([(renamed, "document")])
    with pytest.raises(UserError, match=r"c\.npy holds float32 numbers and not float16; give the"):
        CachedEncoder(encoder, str(tmp_path), dtype="float16").prepare([(corpus, "document")])


@pytest.mark.parametrize("damage", ["cut", "no record", "rows", "numbers", "width", "version"])
def test_damaged_files_are_named(damage: str, tmp_path: Path) -> None:
    corpus, encoder = collection("c", 10)
    CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document")])
    array, record = tmp_path / "document-c.npy", tmp_path / "document-c.json"
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-40])
    elif damage == "no record":
        record.unlink()
    elif damage == "rows":
        np.save(array, np.load(array)[:5])
    elif damage == "numbers":
        np.save(array, np.load(array).astype(np.float64))
    elif damage == "width":
        np.save(array, np.load(array)[:, :2])
    else:
        record.write_text(record.read_text().replace('"version": 1', '"version": 9'))
    says = rf"document-c\.\w+.*remove {tmp_path}/document-c.\* to make it anew"
    with pytest.raises(UserError, match=says):
        CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document")])


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    corpus, encoder = collection("c", 10)
    with pytest.raises(UserError, match=r"cannot be stored in .*No space left.*; make room"):
        CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document")])
    assert not list(tmp_path.glob("*.partial"))


def test_a_kill_before_the_array_has_its_name_loses_nothing(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 10)
    rows = CachedEncoder(encoder, str(tmp_path)).encode_collection(corpus, "document")
    (tmp_path / "document-c.npy").rename(tmp_path / "document-c.npy.partial")
    again = CachedEncoder(encoder, str(tmp_path)).encode_collection(corpus, "document")
    assert torch.equal(again, rows)
    assert sorted(path.name for path in tmp_path.glob("document*")) == FILES


def test_half_precision_takes_half_the_space(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 300, width=64)
    exact = CachedEncoder(encoder, str(tmp_path / "a")).encode_collection(corpus, "document")
    half = CachedEncoder(encoder, str(tmp_path / "b"), dtype="float16")
    rounded = half.encode_collection(corpus, "document")
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 2e-3
    sizes = [(tmp_path / name / "document-c.npy").stat().st_size for name in "ab"]
    assert sizes[1] < 0.51 * sizes[0]


def test_vectors_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    corpus, encoder = collection("c", 5)
    encoder.vectors[corpus.items[3]] = [float("nan")] * 4
    with pytest.raises(UserError, match="NaN or infinity"):
        CachedEncoder(encoder, str(tmp_path)).prepare([(corpus, "document")])
    assert not (tmp_path / "document-c.json").exists()


def test_rows_of_any_items_and_shape_can_be_stored(tmp_path: Path) -> None:
    ids = [f"image{number}" for number in range(6)]
    stored = StoredRows(tmp_path, "logits", {"weights": "abc"}, "digest", ids)
    assert stored.open() is None
    maps = torch.randn(6, 3, 2, 2)

    def compute(done: int) -> Any:
        for first in range(done, 6, 4):
            rows = torch.arange(first, min(first + 4, 6))
            yield rows, maps[rows]

    assert torch.equal(stored.make(compute, (3, 2, 2)), maps)
    assert torch.equal(stored.open(), maps)

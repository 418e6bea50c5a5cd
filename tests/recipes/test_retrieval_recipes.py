"""The shipped recipes of retrieval, on a tiny collection and tiny encoders."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tutelage
from tests.cli.conftest import Run
from tests.helpers.texts import write_beir, write_word_vectors
from tutelage import UserError
from tutelage.core import Batch
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.trainer import Trainer
from tutelage.recipes import parse_recipe
from tutelage.recipes.shipped import ROOT, methods_in

ROWS = ["baseline", "embed_distill", "embed_distill_generated", "inherited", "score"]


@pytest.fixture
def options(here: Path) -> list[str]:
    """Return overrides: a small collection, and encoders that need no network and no package."""
    write_beir(Path("data"), train=False, count=36)
    write_word_vectors(Path("encoder"), width=16, seed=1)
    student = {"class_path": "tutelage.models.StaticEncoder"}
    teacher = {
        "class_path": "tutelage.cache.CachedEncoder",
        "init_args": {
            "folder": "cache",
            "encoder": {**student, "init_args": {"source": "encoder", "hidden": None}},
        },
    }
    return [
        *("--data.root", "data"),
        *("--teacher.model", json.dumps(teacher)),
        *("--student.model", json.dumps({**student, "init_args": {"source": "encoder"}})),
        *("--teacher.preflight", "false"),
        *("--train.batch_size", "16"),
        *("--train.epochs", "2"),
        *("--task.bm25", "false"),
    ]


@pytest.mark.parametrize("folder", ["beir", "cranfield", "wordnet"])
def test_the_rows_of_the_paper_are_shipped_for_every_collection(folder: str) -> None:
    assert methods_in(ROOT / "retrieval" / folder) == ROWS
    for row in ROWS:
        shipped = parse_recipe(f"retrieval/{folder}/{row}").config
        assert shipped.task.class_path == "tutelage.tasks.Retrieval"
        assert shipped.train.gradient_cap is None


def test_plan_train_evaluate_and_resume(run: Run, options: list[str]) -> None:
    recipe = "retrieval/beir/embed_distill_generated"
    planned = run("plan", recipe, *options)
    assert planned.code == 0, planned.err
    assert "embed_distill/generated" in planned.out
    assert "corpus 36" in planned.out
    assert not Path("cache").exists()
    options += ["--train.ema_decay", "0.5"]
    trained = run("train", recipe, "--out", "out", *options)
    assert trained.code == 0, trained.err
    metrics = json.loads(Path("out/metrics.json").read_text())
    test = metrics["test"]
    assert test["num_documents"] == 36
    assert test["document_distance"] == 0
    assert test["retention_ndcg@10"] == pytest.approx(test["ndcg@10"] / test["teacher_ndcg@10"])
    evaluated = run("evaluate", "out", "--json")
    assert evaluated.code == 0, evaluated.err
    found = json.loads(evaluated.out)
    for name, value in found.items():
        assert value == pytest.approx(test[name], abs=1e-6), name
    facts = json.loads(Path("out/student.json").read_text())
    assert (facts["documents"], facts["inputs"]) == (36, "texts")
    if Path("out/student").is_dir():  # with sentence-transformers
        index = json.loads(Path("out/student/index.json").read_text())
        assert index["texts"] == facts["corpus"]
        assert_queries_are_answered(run)
    again = run("train", recipe, "--out", "out", "--resume", *options)
    assert again.code == 0
    assert again.out == trained.out


def assert_queries_are_answered(run: Run) -> None:
    """Without the data and the vectors of the teacher, after `tutelage train`."""
    for folder in ("data", "cache"):
        Path(folder).rename(f"{folder}-away")
    answer = run("predict", "out", "lift wing", "hot plate", "--top", "2", "--json")
    assert answer.code == 0, answer.err
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line["input"] for line in lines] == ["lift wing", "hot plate"]
    assert [sorted(entry) for entry in lines[0]["documents"]] == [["id", "score", "text"]] * 2
    text = run("predict", "out", "lift wing", "--top", "2").out.splitlines()
    assert text[0] == "lift wing"
    assert text[1].split()[:3] == ["1", "id", lines[0]["documents"][0]["id"]]
    model = tutelage.load("out")
    assert model.predict("lift wing", top=2)["documents"] == lines[0]["documents"]
    with pytest.raises(UserError, match=r"SentenceTransformer\('out/student'\) opens it"):
        _ = model.network
    exported = run("export", "out", "--format", "safetensors")
    assert exported.code == 2
    assert "whose networks are not exported" in exported.err
    assert "sentence-transformers opens out/student" in exported.err
    for folder in ("data", "cache"):
        Path(f"{folder}-away").rename(folder)


@pytest.mark.parametrize("row", ["baseline", "embed_distill_generated"])
def test_an_interrupted_and_resumed_run_is_bit_equal(
    row: str, run: Run, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the second epoch of three, with a moving average."""
    recipe = f"retrieval/beir/{row}"
    options += ["--train.epochs", "3", "--train.save_every", "1", "--train.eval_every", "1"]
    options += ["--train.ema_decay", "0.5", "--train.batch_size", "8"]
    assert run("train", recipe, "--out", "whole", *options).code == 0
    step = Trainer._step

    def step_and_interrupt(trainer: Trainer, batch: Batch) -> None:
        step(trainer, batch)
        if trainer.step == trainer.steps_per_epoch + 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", step_and_interrupt)
        stopped = run("train", recipe, "--out", "parts", *options)
    assert stopped.code == 130
    assert not Path("parts/metrics.json").exists()
    assert run("train", recipe, "--out", "parts", "--resume", *options).code == 0
    one, two = (load_file(f"{out}/student.safetensors") for out in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    first, second = (RunFolder(Path(out)) for out in ("whole", "parts"))
    assert without_seconds(first.metrics()) == without_seconds(second.metrics())
    for record, other in zip(first.records(), second.records(), strict=True):
        assert without_seconds(record) == without_seconds(other)


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


def test_query_vectors_alone_need_no_documents(run: Run, options: list[str]) -> None:
    recipe = "retrieval/beir/embed_distill_generated"
    alone = ["--data.documents_per_query", "0", "--method.score_weight", "0"]
    answer = run("plan", recipe, *options, *alone, "--method.task_weight", "0")
    assert answer.code == 0, answer.err
    assert "embed_distill/query" in answer.out
    assert "embed_distill/score" not in answer.out


@pytest.mark.slow
def test_a_study_and_its_report(run: Run, options: list[str]) -> None:
    methods = ["--methods", "baseline,embed_distill", "--seeds", "2", "--out", "study"]
    answer = run("study", "retrieval/beir", *methods, *options)
    assert answer.code == 0, answer.err
    summary = json.loads(Path("study/results.json").read_text())["summary"]
    assert set(summary["embed_distill"]["test"]) >= {"ndcg@10", "query_distance"}
    assert "retention" in answer.out
    report = run("report", "study")
    assert report.code == 0, report.err


def test_the_cache_command(run: Run, refuse: Run, options: list[str]) -> None:
    recipe = "retrieval/beir/embed_distill_generated"
    answer = run("cache", recipe, "--out", "own", *options)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("own/document-documents.npy  36 × 16 float32")
    assert {line.split()[0].rpartition("-")[2] for line in lines} == {
        "documents.npy",
        "train.npy",
        "generated.npy",
        "test.npy",
    }
    before = {path: path.stat().st_mtime_ns for path in Path("own").glob("*.npy")}
    own = ["--teacher.model.folder", "own"]
    trained = run("train", recipe, "--out", "out", *options, *own)
    assert trained.code == 0, trained.err
    assert before == {path: path.stat().st_mtime_ns for path in Path("own").glob("*.npy")}
    says = ("own/document-documents.npy holds float32 numbers and not float16",)
    refuse("cache", recipe, "--out", "own", "--dtype", "float16", *options, says=says)
    half = run("cache", recipe, "--out", "half", "--dtype", "float16", *options)
    assert "ndcg@10 on validation queries: " in half.out
    says = ("Baseline in this recipe has none",)
    bare = ["--teacher", "null"]
    refuse("cache", "classification/digits/baseline", "--out", "x", *bare, says=says)


def test_what_does_not_belong_together_is_said(run: Run, refuse: Run, options: list[str]) -> None:
    recipe = "retrieval/beir/embed_distill"
    network = (
        '{"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 2}}'
    )
    refuse(
        *("train", recipe, "--out", "o"), *options, "--student.model", network, says=("student",)
    )
    refuse(
        "train", recipe, "--out", "o", *options, "--data.root", "gone", says=("gone: there is no",)
    )
    says = ("inherit_documents",)
    refuse("train", recipe, "--out", "o", *options, "--teacher", "null", says=says)
    says = ("no generated queries 'more'",)
    shares = ["--method.shares", '{"more": 1.0}']
    refuse("train", recipe, "--out", "o", *options, *shares, says=says)

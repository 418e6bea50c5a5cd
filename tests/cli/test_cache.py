"""`tutelage cache` stores a teacher's outputs, and says what they cost."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.cli.conftest import Run
from tests.helpers.commands import TEACHER, network, part, write_recipe


def test_it_stores_what_a_run_then_reads(run: Run, teacher: Path) -> None:
    method = part("methods.RCKA", layer_pairs={"stage2": "stage2"})
    spec = {**network(width=8), "weights": str(teacher)}
    recipe = write_recipe("mine.yaml", method=method, teacher=spec)
    answer = run("cache", recipe, "--out", "own", "--dtype", "float16", "--top-k", "3")
    assert answer.code == 0
    assert "outputs (logits, stage2) of 100 samples: 0.1 MiB in own" in answer.err
    assert "logits  100 samples, 0.0 MiB in 1 file(s), off by at most" in answer.out
    assert "; KL(teacher, stored) " in answer.out
    assert "stage2  100 samples, 0.1 MiB in 1 file(s), off by at most" in answer.out
    keys = answer.out.strip().splitlines()[-1].partition("train with ")[2].split()
    assert keys[:4] == ["--teacher.cache", "disk", "--teacher.cache_dir", "own"]
    files = {path: path.stat().st_mtime_ns for path in Path("own").rglob("*.safetensors")}
    assert len(files) == 3  # and the outputs for test data
    trained = run("train", recipe, "--out", "run", *keys)
    assert trained.code == 0
    assert "storing" not in trained.err
    assert {path: path.stat().st_mtime_ns for path in Path("own").rglob("*.safetensors")} == files


def test_it_trains_the_teacher_first_and_stores_views(run: Run) -> None:
    write_recipe("teacher.yaml", **TEACHER)
    recipe = write_recipe(
        "mine.yaml",
        data=part("data.Digits", augment=True),
        method=part("methods.KD"),
        teacher={"recipe": "teacher.yaml", "cache_dir": "here"},
    )
    answer = run("cache", recipe, "--views", "2")
    assert answer.code == 0
    assert "training the teacher once" in answer.err
    assert "logits  100 samples × 2 views, 0.0 MiB in 2 file(s), exact" in answer.out
    assert "--teacher.cache_views 2" in answer.out
    assert list(Path("here").rglob("output-00000.safetensors"))


def test_the_keys_it_prints_are_those_of_each_teacher(run: Run, teacher: Path) -> None:
    spec = {**network(width=8), "weights": str(teacher)}
    method = part("methods.KD")
    teachers = {"a": spec, "b": spec}
    recipe = write_recipe("own.yaml", method=method, teacher=None, teachers=teachers)
    answer = run("cache", recipe, "--out", "my cache")
    assert answer.code == 0
    keys = shlex.split(answer.out.strip().splitlines()[-1].partition("train with ")[2])
    assert keys[:2] == ["--teachers.a.cache", "disk"]
    assert "--teachers.b.cache_dir" in keys
    trained = run("train", recipe, "--out", "run", *keys)
    assert trained.code == 0
    assert "storing" not in trained.err


def test_what_it_cannot_store_is_said(refuse: Run, teacher: Path) -> None:
    refuse("cache", write_recipe("mine.yaml"), says=("Baseline in this recipe has none",))
    spec = {**network(width=8), "weights": str(teacher)}
    data = part("data.Digits", augment=True)
    recipe = write_recipe("own.yaml", data=data, method=part("methods.KD"), teacher=spec)
    says = ("samples that stay the same in every epoch", "teacher.cache_views")
    refuse("cache", recipe, "--out", "own", says=says)
    refuse("cache", recipe, "--views", "0", says=("cache_views must be at least 2, got 0",))
    refuse("cache", recipe, "--top-k", "0", says=("cache_top_k must be at least 1, got 0",))

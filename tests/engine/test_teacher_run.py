"""A teacher that several runs need is trained by one of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine.test_lock import holder
from tests.helpers.runs import make_recipe
from tutelage import Baseline
from tutelage.engine import Recipe, teacher_run
from tutelage.engine.run_folder import RunFolder
from tutelage.engine.teacher_run import TeacherRun


def build() -> Recipe:
    return make_recipe(Baseline(), None, epochs=1)


def test_one_that_another_process_trains_is_waited_for_and_taken_over_if_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = TeacherRun("teacher.yaml", "a: 1\n", tmp_path / "teacher", build)
    run.out.mkdir()
    with holder(run.out) as process:

        def kill(seconds: float) -> None:
            process.kill()
            process.wait()

        with monkeypatch.context() as patched:
            patched.setattr(teacher_run.time, "sleep", kill)
            assert run.train()
    lines = [line for line in capsys.readouterr().err.splitlines() if "teacher" in line]
    assert lines == [
        f"waiting for the teacher that process {process.pid} on {os.uname().nodename} trains: "
        f"{run.out}",
        f"training the teacher once: teacher.yaml → {run.out}",
    ]
    assert run.ready
    assert not (run.out / "run.lock").exists()


def test_one_that_another_process_finishes_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TeacherRun("teacher.yaml", "a: 1\n", tmp_path / "teacher", build)
    run.out.mkdir()
    with holder(run.out) as process:

        def finish(seconds: float) -> None:
            RunFolder(run.out).finish({"seed": 0})

        monkeypatch.setattr(teacher_run.time, "sleep", finish)
        assert run.train()
        process.kill()
    assert RunFolder(run.out).metrics() == {"seed": 0}
    assert not (run.out / "log.jsonl").exists()

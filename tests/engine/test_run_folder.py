"""What a kill leaves in a run's folder, and that the next command copes with it."""

from __future__ import annotations

import json
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from tests.helpers.runs import make_recipe
from tutelage import KD, Baseline, UserError
from tutelage.engine import fit, run_folder
from tutelage.engine.lock import locked
from tutelage.engine.run_folder import RunFolder
from tutelage.io import atomic, remove_leftovers, temporary_folder, write_json, write_tensors


def test_a_folder_whose_run_was_killed_at_once_can_be_used(tmp_path: Path) -> None:
    for number, names in enumerate(([], ["run.lock"], ["run.lock", "environment.json"])):
        out = tmp_path / str(number)
        out.mkdir()
        temporary_folder(out / "recipe.yaml")
        for name in names:
            (out / name).write_text("{}")
        for resume in (False, True):
            RunFolder(out).check("a: 1\n", resume)
        assert fit(make_recipe(Baseline(), None, epochs=1), out, resume=bool(number)) is not None
        left = [path.name for path in out.iterdir() if path.name.startswith((".", "run.lock"))]
        assert left == []
    (tmp_path / "2/recipe.yaml").unlink()
    with pytest.raises(UserError, match="is no run of ours"):
        RunFolder(tmp_path / "2").check("a: 1\n", resume=True)


def test_a_folder_that_another_process_discards_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "new/run")
    tries = []

    def locked_late(path: Path) -> AbstractContextManager[None]:
        tries.append(path)
        if len(tries) == 1:
            path.rmdir()
        return locked(path)

    monkeypatch.setattr(run_folder, "locked", locked_late)
    with folder.claimed():
        assert (folder.path / "run.lock").exists()
        folder.create("a: 1\n")
        folder.discard()
        # Nobody else begins here before all of it is removed.
        assert [path.name for path in folder.path.iterdir()] == ["run.lock"]
    assert len(tries) == 2
    assert not list(tmp_path.iterdir())


def test_what_a_kill_in_finishing_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    metrics = fit(make_recipe(Baseline(), None, epochs=1), out, text="a: 1\n")
    before = sorted(path.name for path in out.iterdir())
    (out / "checkpoints/000000004").mkdir(parents=True)
    (out / "run.lock").write_text("")
    temporary_folder(out / "metrics.json")
    again = fit(make_recipe(Baseline(), None, epochs=1), out, text="a: 1\n", resume=True)
    assert again == metrics
    assert sorted(path.name for path in out.iterdir()) == before


def test_no_record_is_written_twice(teacher_run: Path, tmp_path: Path) -> None:
    def run(resume: bool) -> None:
        recipe = make_recipe(KD(), teacher_run, epochs=2, cka_every=1)
        fit(recipe, tmp_path / "run", resume=resume, text="a: 1\n")

    run(False)
    out = RunFolder(tmp_path / "run")
    logs = [out.records(name) for name in ("log.jsonl", "layer_maps.jsonl")]
    (out.path / "metrics.json").unlink()  # and there is no checkpoint: all is done once more
    run(True)
    assert [r["epoch"] for r in out.records("layer_maps.jsonl")] == [0, 1, 2]
    assert [r["epoch"] for r in out.records()] == [1, 2]
    assert out.records("layer_maps.jsonl") == logs[1]


@pytest.mark.parametrize("cut", [1, 20, -2, -1])
def test_a_log_that_is_cut_within_a_line_is_read_up_to_there(cut: int, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    records = [{"step": step, "terms": {"task": 1.0}, "at": {}} for step in (4, 8, 12)]
    for record in records:
        folder.log(record)
    text = (tmp_path / "log.jsonl").read_text()
    last = json.dumps(records[-1]) + "\n"
    (tmp_path / "log.jsonl").write_text(text.removesuffix(last) + last[:cut])
    whole = 3 if cut == -1 else 2
    assert folder.records() == records[:whole]
    folder.rewind(12)
    folder.log({"step": 16})
    assert [record["step"] for record in folder.records()] == [*[4, 8, 12][:whole], 16]


def test_a_damaged_line_in_the_middle_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 4}\n{"st\xffep\n5\n{"step": true}\n{"step": 8}\n')
    RunFolder(tmp_path).rewind(8)
    assert "2 damaged line(s)" in capsys.readouterr().err
    assert log.read_text().count("\n") == 3


def test_temporary_names_follow_no_link_and_modes_follow_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    names = iter(["a" * 16, "b" * 16] * 2)
    monkeypatch.setattr("tutelage.io.secrets.token_hex", lambda count: next(names))
    for name in ("metrics.json", "student.safetensors"):
        (tmp_path / f".{name}.{'a' * 16}.tmp").symlink_to(victim)
        (tmp_path / f"{name}.tmp").symlink_to(victim)
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "metrics.json", {})
        write_tensors(tmp_path / "student.safetensors", {"x": torch.ones(2)})
    finally:
        os.umask(before)
    assert victim.read_text() == "precious"
    for name in ("metrics.json", "student.safetensors"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640
        assert not (tmp_path / name).is_symlink()


def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert json.loads(path.read_text()) == {"a": 1}
    temporary_folder(path)
    remove_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]

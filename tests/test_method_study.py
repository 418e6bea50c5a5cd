"""The study of all methods for a GPU runs on a CPU too: a few steps on a few images, all of its recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.method_study import ALL, main
from benchmarks.studies import Study, gather

from tests.cli.support import network, part, write_fashion_mnist, write_recipe

REAL = Path("/usr/share/datasets/fashion-mnist")
SMALL = ["train.epochs=1", "train.milestones=[]", "train.evaluate_every=1", "train.batch_size=10", "labels=20"]


@pytest.mark.skipif(not REAL.exists(), reason="needs dataset-fashion-mnist")
def test_the_full_profile_runs_every_method_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_fashion_mnist(tmp_path / "data", REAL, 80)
    train = {"epochs": 1, "batch_size": 50, "threads": 1}
    teacher = write_recipe(
        tmp_path / "teacher.yaml",
        data=part("data.FashionMNIST", root=str(data)),
        student=network("models.resnet32", channels=1, num_classes=10),
        train=train,
        labels=None,
    )
    small = [*SMALL, f"data.root={data}", f"teacher.recipe={teacher}", "train.workers=0", "train.threads=1"]
    command = ["--profile", "full", "--seeds", "1", "--set", *small]
    main(command)
    main([*command, "--collect", "--out", "result.json"])
    result = json.loads(Path("result.json").read_text())
    assert list(result["summary"]) == list(ALL)
    assert all(row["test"]["count"]["mean"] == 80 for row in result["summary"].values())
    assert result["runs"]["rcka"]["0"]["parameters"]["student"] > 1e6
    assert "difference" in result["summary"]["kd"]


def test_an_unknown_study_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fashion-9"])
    assert "no study ['fashion-9'] of the profile quick" in capsys.readouterr().err


def test_earlier_runs_fill_in_if_those_made_again_are_equal(tmp_path: Path) -> None:
    def metrics(top1: float) -> dict[str, Any]:
        test = {"top1": top1}
        ends = {"last": {"epoch": 1, "test": test}, "best": {"epoch": 1, "test": test}}
        return {
            "test": test,
            "validation": test,
            **ends,
            "seconds": 1.0,
            "steps": 1,
            "parameters": {"student": 1, "method": 0},
        }

    run = tmp_path / "runs/alone/seed0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps(metrics(0.5)))
    (run / "environment.json").write_text(json.dumps({"commit": "now"}))
    earlier = tmp_path / "earlier.json"
    study = Study("classification/digits", {"alone": ("alone", [])})
    then = {"alone": {"0": metrics(0.5), "1": metrics(0.7)}, "other": {}}
    earlier.write_text(json.dumps({"runs": then}))
    found = gather(study, tmp_path / "runs", range(2), earlier)
    assert [found["runs"]["alone"][seed]["test"]["top1"] for seed in (0, 1)] == [0.5, 0.7]
    assert found["runs"]["alone"][0]["commit"] == "now"
    then["alone"]["0"] = metrics(0.6)
    earlier.write_text(json.dumps({"runs": then}))
    with pytest.raises(ValueError, match="alone, seed 0"):
        gather(study, tmp_path / "runs", range(2), earlier)

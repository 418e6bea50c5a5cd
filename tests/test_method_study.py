"""The study of all methods for a GPU runs on a CPU too: a few steps on a few images, all of its recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.method_study import ALL, main

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
    (told,) = result["teachers"].values()
    assert told["test"]["count"] == 80
    assert result["summary"]["kd"]["validation"]["top1"]["mean"] == result["runs"]["kd"]["0"]["validation"]["top1"]


def test_an_unknown_study_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fashion-9"])
    assert "no study ['fashion-9'] of the profile quick" in capsys.readouterr().err

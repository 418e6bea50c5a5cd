"""A run with several labels an item, from training to the exported file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.deploy.conftest import TRAIN, train
from tests.helpers.commands import network, part
from tests.helpers.own_data import write_multi_label
from tutelage import load
from tutelage.cli import main
from tutelage.core import Batch
from tutelage.core.prediction import ClassMap
from tutelage.tasks import MultiLabelClassification


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that names the colors of an image."""
    folder = tmp_path_factory.mktemp("colors")
    write_multi_label(folder / "own")
    return train(
        folder,
        data=part(
            "data.ImageTable", root="own", multi_label=True, separator="|", size=8, augment=False
        ),
        task=part("tasks.MultiLabelClassification", num_classes=3),
        student=network(num_classes=3, channels=3, width=8),
        num_labels=None,
        train={**TRAIN, "epochs": 15, "batch_size": 10, "eval_every": 5},
    )


def test_every_class_above_the_threshold_is_predicted(colors: Path) -> None:
    model = load(colors)
    with (colors.parent / "own/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = [colors.parent / "own" / row["path"] for row in rows]
    answers = model.predict(files)
    right = 0
    for row, answer in zip(rows, answers, strict=True):
        probabilities = [entry["probability"] for entry in answer["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(value >= 0.5 for value in probabilities)
        right += {entry["class"] for entry in answer["classes"]} == set(row["labels"].split("|"))
    assert right > 0.8 * len(rows)
    assert {len(answer["classes"]) for answer in answers} >= {1, 2}
    for answer, first in zip(answers, model.predict(files, top=1), strict=True):
        assert first["classes"] == answer["classes"][:1]


def test_no_class_is_an_answer_too() -> None:
    task = MultiLabelClassification(num_classes=2, threshold=0.9)
    logits = torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    batch = Batch({"inputs": torch.zeros(2, 1, 2, 2)})
    nothing, both = task.predictions(logits, batch, ClassMap(["cat", "dog"]), None)
    assert nothing.record == {"classes": []}
    assert [entry["class"] for entry in both.record["classes"]] == ["dog", "cat"]
    assert both.record["classes"][1]["probability"] == pytest.approx(0.952574)


def test_the_exported_file_says_how_logits_are_read(
    colors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(colors.parent)
    assert main(["export", "run", "--no-latency", "--format", "torch-export"]) == 0
    assert "several classes an image: those with sigmoid(logit) >= 0.5" in capsys.readouterr().out
    record = json.loads(Path("run/export/student.pt2.json").read_text())
    assert record["decision"]["multi_label"] is True
    assert record["decision"]["threshold"] == 0.5
    assert record["classes"] == ["blue", "green", "red"]
    model = load("run")
    files = sorted(Path("own/photos").iterdir())[:4]
    assert model.transform is not None
    images = torch.stack([model.transform(file) for file in files])
    probabilities = torch.export.load("run/export/student.pt2").module()(images).sigmoid()
    for row, answer in zip(probabilities, model.predict(files), strict=True):
        decided = {record["classes"][label] for label in (row >= 0.5).nonzero().flatten()}
        assert {entry["class"] for entry in answer["classes"]} == decided

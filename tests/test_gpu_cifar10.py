"""The study of CIFAR-10 for a GPU runs on a CPU too: a few steps on a few images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks.gpu_cifar10 import main
from benchmarks.side_by_side import DeviceImages

from tests.helpers.commands import write_cifar10


@pytest.mark.slow
def test_students_learn_side_by_side_from_one_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cifar10(tmp_path, 1)
    out, teacher = tmp_path / "result.json", tmp_path / "teacher.safetensors"
    command = ["--root", str(tmp_path), "--epochs", "1", "--batch-size", "8", "--no-compile"]
    command += ["--methods", "kd", "rcka", "--out", str(out), "--teacher", str(teacher)]
    main(command)
    assert teacher.exists()
    assert "training the teacher" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert list(result["summary"]) == ["baseline", "kd", "rcka"]
    assert result["runs"]["kd"]["0"]["test"]["num_samples"] == 10
    assert "difference" in result["summary"]["rcka"]
    main(command)
    assert "training the teacher" not in capsys.readouterr().out
    again = json.loads(out.read_text())
    assert again["runs"]["kd"]["0"]["test"] == result["runs"]["kd"]["0"]["test"]


def test_every_image_of_an_epoch_is_cropped_from_its_frame() -> None:
    images = torch.arange(1, 13, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 32, 32)
    data = DeviceImages(images.contiguous(), torch.arange(12), batch_size=5, seed=0)
    assert len(data) == 2
    batches = list(data.epoch())
    seen = torch.cat([batch["labels"] for batch in batches])
    assert len(seen.unique()) == 10
    for batch in batches:
        values = (batch["inputs"] * 255).round()
        for image, label in zip(values, batch["labels"], strict=True):
            assert set(image.unique().tolist()) <= {0, int(label) + 1}
            assert (image[:, 8:24, 8:24] == int(label) + 1).all()

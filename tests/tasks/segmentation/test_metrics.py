from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.helpers.ranks import fork_ranks
from tutelage.core import Batch
from tutelage.errors import UserError
from tutelage.tasks import Segmentation
from tutelage.tasks._checks import warn_once


def test_images_without_a_class_are_counted() -> None:
    masks = torch.full((3, 4, 4), -100)
    masks[1, 0, 0] = 1
    metrics = Segmentation(2).metrics()
    metrics.update(torch.zeros(3, 2, 4, 4), Batch.of((torch.zeros(3, 3, 4, 4), masks)))
    assert metrics.compute() == {"miou": 0.0, "accuracy": 0.0, "unlabeled": 2.0, "num_samples": 1.0}


def test_more_pixels_than_float32_can_count_are_counted() -> None:
    metrics = Segmentation(2).metrics()
    out = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1024, 1024)
    for side in (*[1024] * 16, 1):
        masks = torch.zeros(1, side, side, dtype=torch.int64)
        metrics.update(out[..., :side, :side], Batch.of((None, masks)), out[..., :side, :side])
    assert metrics.compute() == {
        "miou": 1.0,
        "accuracy": 1.0,
        "agreement": 1.0,
        "num_samples": 2.0**24 + 1,
    }


RANKS = """
import torch, torch.distributed as dist
from tutelage.core import Batch
from tutelage.errors import UserError
from tutelage.tasks import Segmentation
from tutelage.tasks._checks import warn_once
dist.init_process_group("gloo")
noise = torch.Generator().manual_seed(0)
outs = torch.randn(7, 4, 6, 5, generator=noise)
teacher_outs = torch.randn(7, 4, 6, 5, generator=noise)
masks = torch.randint(0, 4, (7, 12, 10), generator=noise)
masks[0] = -100
masks[:, :2] = -100

def figures(items, teacher):
    metrics = Segmentation(4, names=["a", "b", "c", "d"]).metrics()
    for item in items:
        row = slice(item, item + 1)
        teacher_out = {"out": teacher_outs[row]} if teacher else None
        metrics.update({"out": outs[row]}, Batch.of((None, masks[row])), teacher_out)
    return metrics.compute()

shares = [([0, 1], [2, 3, 4, 5, 6]), ([], [0, 1, 2]), ([0], [1, 2])]
found = [figures(share[dist.get_rank()], teacher) for share in shares for teacher in (True, False)]
dist.barrier()
dist.destroy_process_group()
expected = [figures([*one, *two], teacher) for one, two in shares for teacher in (True, False)]
assert found == expected, (found, expected)
assert ["agreement" in figures for figures in found] == [True, False] * 3
assert ["unlabeled" in figures for figures in found] == [True] * 6
"""


def test_two_ranks_with_unequal_shares_give_the_figures_of_one(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    fork_ranks(script)


def test_nan_is_refused_and_counted() -> None:
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0, 0] = float("nan")
    metrics = Segmentation(2).metrics()
    metrics.update(logits, Batch.of((None, torch.zeros(1, 2, 2, dtype=torch.int64))))
    with pytest.raises(UserError, match="the network gives NaN or infinity for 1 of 4 pixels"):
        metrics.compute()


def test_classes_that_occur_nowhere_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    warn_once.cache_clear()
    for _ in range(2):
        metrics = Segmentation(3, names=["sky", "road", "car"]).metrics()
        masks = torch.tensor([[[0, 1]]])
        metrics.update(torch.eye(3)[masks].movedim(-1, 1), Batch.of((None, masks)))
        figures = metrics.compute()
    assert math.isnan(figures["iou/car"])
    assert figures["miou"] == 1.0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "holds the classes ['car']: their IoU is NaN, and miou is over the other 2" in told


def test_a_class_out_of_range_is_named() -> None:
    metrics = Segmentation(2).metrics()
    batch = Batch.of((torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255)))
    with pytest.raises(UserError, match="there is a label 255, but the task has 2 classes"):
        metrics.update(torch.zeros(1, 2, 2, 2), batch)

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from tests.helpers.operators import count_operators
from tests.helpers.ranks import fork_ranks
from tutelage import UserError
from tutelage.core import Batch
from tutelage.tasks import Detection
from tutelage.tasks._checks import warn_once
from tutelage.tasks.detection.metrics import SUMMARY, DetectionMetrics, average_precision

Images = list[dict[str, Any]]


def scene(images: int = 30, classes: int = 4) -> tuple[Images, Images]:
    """Return true boxes of all sizes, some crowds, and found ones near them, doubled or wrong."""
    noise = np.random.default_rng(0)
    truth, found = [], []
    for number in range(images):
        corner, side = (
            noise.uniform(0, 300, (6, 2)),
            noise.choice([12, 40, 150], (6, 1)) * noise.uniform(0.8, 1.2, (6, 2)),
        )
        boxes, labels = (
            np.concatenate([corner, corner + side], 1),
            noise.integers(1, classes + 1, 6),
        )
        near = np.concatenate(
            [
                boxes + noise.normal(0, 4, boxes.shape),
                boxes[:2],
                np.tile(noise.uniform(0, 90, (3, 2)), 2) + np.array([0, 0, 30, 30]),
            ]
        )
        found_labels = np.concatenate(
            [labels, labels[:2], noise.integers(1, classes + 2, 3)]
        )  # one class that is never true
        crowd = (noise.random(6) < 0.1).tolist()
        truth.append(
            {
                "image_id": number,
                "boxes": boxes.tolist(),
                "labels": labels.tolist(),
                "area": (side.prod(1) * 0.7).tolist(),
                "iscrowd": crowd,
            }
        )
        found.append(
            {
                "image_id": number,
                "boxes": near.tolist(),
                "labels": found_labels.tolist(),
                "scores": noise.random(len(found_labels)).tolist(),
            }
        )
    return truth, found


def by_pycocotools(truth: Images, found: Images) -> tuple[list[float], Any]:
    """Return COCO's twelve numbers as its own code computes them."""
    content: dict[str, Any] = {
        "info": {},
        "images": [{"id": t["image_id"]} for t in truth],
        "categories": [{"id": c} for c in range(1, 5)],
        "annotations": [],
    }
    for image in truth:
        for box, label, area, crowd in zip(
            image["boxes"], image["labels"], image["area"], image["iscrowd"], strict=True
        ):
            x1, y1, x2, y2 = box
            entry = {
                "image_id": image["image_id"],
                "category_id": label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area,
                "iscrowd": int(crowd),
            }
            content["annotations"].append({"id": len(content["annotations"]) + 1, **entry})
    results = [
        {
            "image_id": image["image_id"],
            "category_id": label,
            "score": score,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for image in found
        for (x1, y1, x2, y2), label, score in zip(
            image["boxes"], image["labels"], image["scores"], strict=True
        )
        if label < 5
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = content
        true.createIndex()
        run = COCOeval(true, true.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats.tolist(), run.eval["precision"]


def test_the_figures_are_pycocotools() -> None:
    truth, found = scene()
    figures = average_precision(truth, found, ["ant", "bee"])
    expected, precision = by_pycocotools(truth, found)
    for name, value in zip(SUMMARY, expected, strict=False):
        assert figures[name] == pytest.approx(value, abs=1e-12), name
    assert figures["ar@100"] == pytest.approx(expected[8], abs=1e-12)
    for place, name in enumerate(["ant", "bee", "3", "4"]):
        assert figures[f"ap/{name}"] == pytest.approx(
            precision[:, :, place, 0, 2].mean(), abs=1e-12
        )
    assert 0.1 < figures["ap"] < 0.9


def metrics(truth: Images, found: Images, batches: int) -> dict[str, float]:
    metric = DetectionMetrics(lambda out, batch: out)
    size = len(truth) // batches
    for start in range(0, len(truth), size):
        targets = [
            {name: torch.tensor(value) for name, value in image.items()}
            for image in truth[start : start + size]
        ]
        out = [
            {name: torch.tensor(image[name]) for name in ("boxes", "labels", "scores")}
            for image in found[start : start + size]
        ]
        metric.update(out, Batch.of((None, targets)), out)
    return metric.compute()


def test_batches_add_up() -> None:
    truth, found = scene(images=8)
    one, four = metrics(truth, found, 1), metrics(truth, found, 4)
    assert one == four
    assert one["num_samples"] == 8
    assert one["teacher_ap"] == one["ap"]


def test_images_without_boxes_and_networks_that_find_nothing() -> None:
    nothing: dict[str, Tensor] = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "scores": torch.zeros(0),
    }
    metric = DetectionMetrics(lambda out, batch: out)
    full = {
        "boxes": torch.tensor([[0.0, 0, 9, 9]]),
        "labels": torch.tensor([1]),
        "area": torch.tensor([81.0]),
        "iscrowd": torch.tensor([False]),
    }
    empty = {name: value[:0] for name, value in full.items()}
    targets = [{**full, "image_id": torch.tensor(0)}, {**empty, "image_id": torch.tensor(1)}]
    metric.update([nothing, nothing], Batch.of((None, targets)))
    figures = metric.compute()
    assert figures["ap"] == 0.0
    assert figures["num_samples"] == 2
    assert "ap_large" not in figures
    metric.update([nothing], Batch.of((None, targets[:1])))
    with pytest.raises(UserError, match="each image once"):
        metric.compute()


SCRIPT = """
import torch, torch.distributed as dist
from tests.tasks.detection.test_metrics import metrics, scene
truth, found = scene(images=8)
one = metrics(truth, found, 1)
dist.init_process_group("gloo")
mine = slice(0, 3) if dist.get_rank() == 0 else slice(3, 8)
ranks = metrics(truth[mine], found[mine], 1)
dist.destroy_process_group()
assert ranks == one, (ranks, one)
"""


def test_two_ranks_with_unequal_shares_give_the_figures_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    fork_ranks(script)


def evaluated(boxes: Tensor, scores: Tensor, true_boxes: Tensor) -> dict[str, float]:
    found = {"boxes": boxes, "scores": scores, "labels": torch.ones(len(boxes), dtype=torch.int64)}
    count = len(true_boxes)
    target = {
        "boxes": true_boxes,
        "labels": torch.ones(count, dtype=torch.int64),
        "area": torch.full((count,), 81.0),
        "iscrowd": torch.zeros(count, dtype=torch.int64),
        "image_id": torch.tensor(0),
    }
    metrics = DetectionMetrics(lambda output, batch: output)
    metrics.update([found], Batch.of(([torch.zeros(3, 9, 9)], [target])))
    return metrics.compute()


def test_a_part_without_boxes_has_no_average_precision(capsys: pytest.CaptureFixture[str]) -> None:
    warn_once.cache_clear()
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    figures = evaluated(box, torch.tensor([0.5]), torch.zeros(0, 4))
    assert np.isnan(figures.pop("ap"))
    assert figures == {"num_samples": 1.0}
    assert "no box of a single object is in the 1 images" in capsys.readouterr().err


def test_a_box_or_score_of_nan_is_refused() -> None:
    box = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    nan = float("nan")
    for boxes, scores in ((box * nan, torch.ones(1)), (box, torch.tensor([nan]))):
        with pytest.raises(UserError, match="the network gives NaN or infinity for 1 of 1 images"):
            evaluated(boxes, scores, box)


def test_steps_and_validation_read_nothing_from_the_device_image_by_image() -> None:
    task = Detection(num_classes=5)

    def waits(count: int) -> int:
        truth, found = (
            [{name: torch.as_tensor(value) for name, value in image.items()} for image in images]
            for images in scene(count)
        )
        for target in truth:  # as the data sets of the package give them
            target["single"] = (~target["iscrowd"]).nonzero().flatten()
        batch = Batch({"inputs": [torch.zeros(3, 8, 8)] * count, "labels": truth})
        metrics = task.metrics()

        def step() -> None:
            task.inputs(batch)
            metrics.update(found, batch, found)

        return count_operators(step).waits

    assert waits(2) == waits(9) == 0

"""COCO's average precision of boxes, computed by faster-coco-eval from what all ranks have seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Metrics
from tutelage.errors import UserError

Detections = Callable[[Any, Any], list[dict[str, Tensor]]]
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # in the order of COCO's summary
RECALL = 8  # where "at most 100 boxes an image" stands in that summary


class DetectionMetrics(Metrics):
    """Average precision over IoU .50 to .95, at .50 and .75, by size (area up to 32², 96², above), and by class.

    Figures are shares, 0 to 1; ar is the recall with at most 100 boxes an image; count is the number of images. A size
    or class without boxes has no figure. With a teacher there is `teacher_ap`.

    Args:
        detections: reads (output, batch) as one dict an image: `boxes` (n, 4) corners in the image's pixels, `scores`,
            `labels`.
        names: of the classes by label, from label 1 on; classes beyond are called by their number.
    """

    def __init__(self, detections: Detections, names: Sequence[str] = ()) -> None:
        _evaluator()
        self._detections, self._names = detections, names
        self._truth: list[dict[str, Any]] = []
        self._found: list[list[dict[str, Any]]] = [[], []]

    def update(self, out: Any, batch: Any, teacher: Any = None) -> None:
        """Take in one batch."""
        for target in batch[1]:
            self._truth.append(
                {name: target[name].tolist() for name in ("boxes", "labels", "area", "iscrowd", "image_id")}
            )
        for whose, told in enumerate((out, teacher)):
            if told is not None:
                for target, found in zip(batch[1], self._detections(told, batch), strict=True):
                    named = {name: found[name].double().tolist() for name in ("boxes", "scores", "labels")}
                    self._found[whose].append({"image_id": int(target["image_id"]), **named})

    def compute(self) -> dict[str, float]:
        """Return the figures by name.

        Raises:
            UserError: no image was seen, on any rank, or one was seen twice.
        """
        truth, students, teachers = _everyone([self._truth, *self._found])
        numbers = [image["image_id"] for image in truth]
        if not numbers or len(set(numbers)) != len(numbers):
            raise UserError("detections are evaluated on each image once; check data.root, the split and the image ids")
        figures = average_precision(truth, students, self._names)
        if teachers:
            figures["teacher_ap"] = average_precision(truth, teachers, ())["ap"]
        return {**figures, "count": float(len(numbers))}


def average_precision(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], names: Sequence[str] = ()
) -> dict[str, float]:
    """Return COCO's figures of boxes.

    >>> true = {"image_id": 0, "boxes": [[0.0, 0.0, 9.0, 9.0]], "labels": [1], "area": [81.0], "iscrowd": [False]}
    >>> seen = {"image_id": 0, "boxes": [[0.0, 0.0, 9.0, 9.0]], "labels": [1], "scores": [0.7]}
    >>> average_precision([true], [seen])["ap"]
    1.0

    Args:
        truth: per image `image_id`, and per box `boxes` (corners), `labels`, `area`, `iscrowd`.
        found: per image `image_id`, and per box `boxes`, `labels`, `scores`.
        names: as in `DetectionMetrics`.
    """
    coco, evaluator = _evaluator()
    labels = sorted({label for image in truth for label in image["labels"]})
    true = coco(
        {
            "images": [{"id": image["image_id"]} for image in truth],
            "categories": [{"id": label, "name": str(label)} for label in labels],
            "annotations": [
                {"id": number, **entry}
                for number, entry in enumerate((e for image in truth for e in _annotations(image)), 1)
            ],
        }
    )
    known = set(labels)
    boxes = [entry for image in found for entry in _annotations(image) if entry["category_id"] in known]
    run = evaluator(true, true.loadRes(boxes), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    figures = {name: float(value) for name, value in zip(FIGURES, run.stats, strict=False)}
    figures["ar"] = float(run.stats[RECALL])
    precision = torch.as_tensor(run.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, class; all sizes, 100 boxes
    for place, label in enumerate(labels if len(labels) > 1 else ()):
        name = names[label - 1] if 0 < label <= len(names) else str(label)
        figures[f"ap/{name}"] = float(precision[:, :, place].mean())
    return {name: value for name, value in figures.items() if value >= 0 or name == "ap"}


def _annotations(image: dict[str, Any]) -> list[dict[str, Any]]:
    entries = []
    for place, (x1, y1, x2, y2) in enumerate(image["boxes"]):
        entry = {"image_id": image["image_id"], "category_id": int(image["labels"][place])}
        entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        entry["area"] = image["area"][place] if "area" in image else (x2 - x1) * (y2 - y1)
        entry["iscrowd"] = int(image["iscrowd"][place]) if "iscrowd" in image else 0
        if "scores" in image:
            entry["score"] = image["scores"][place]
        entries.append(entry)
    return entries


def _evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise UserError("average precision needs faster-coco-eval; pip install 'tutelage[detection]'") from None
    return COCO, COCOeval_faster


def _everyone(mine: list[list[Any]]) -> list[list[Any]]:
    """Return the lists of all ranks, joined."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return [[item for part in parts for item in part[place]] for place in range(len(mine))]

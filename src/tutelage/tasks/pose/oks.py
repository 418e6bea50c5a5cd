"""Average precision by object keypoint similarity, computed by faster-coco-eval."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Batch
from tutelage.core.distributed import gather_lists
from tutelage.errors import NotInstalledError, UserError

# COCO's deviations of the 17 joints, as shares of the square root of a person's area.
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
SUMMARY = ("ap", "ap50", "ap75", "ap_medium", "ap_large")
RECALLS = ("ar", "ar50", "ar75", "ar_medium", "ar_large")
MIN_PEAK = 0.2  # joints whose peak is below do not enter a person's score
MAX_OKS = 0.9  # of two persons that are more alike, the one with the lower score is dropped
FIELDS = ("crops", "area", "image_id", "image_points")


class OksMetrics:
    """Average precision and recall over the persons of all images.

    Args:
        sigmas: (K,) deviation of each joint as a share of the square root of a person's area.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        _import_evaluator()  # fails now rather than after an epoch
        self._sigmas = list(sigmas)
        self._persons: list[dict[str, Any]] = []

    def update(self, points: Tensor, peaks: Tensor, batch: Batch) -> None:
        """Add the persons of a batch.

        Args:
            points: (N, K, 2) in pixels of the input.
            peaks: (N, K), the largest value of each map.
            batch: with `crops`, `area`, `image_id` and `image_points`.

        Raises:
            UserError: If the data does not have them.
        """
        missing = [name for name in FIELDS if name not in batch]
        if missing:
            raise UserError(
                f"similarity of keypoints needs data with {missing}, as CocoPose has them; leave "
                "task.oks_sigmas out for other data"
            )
        found = to_image(points, batch).double().tolist()
        seen = peaks > MIN_PEAK
        scores = (peaks * seen).sum(1) / seen.sum(1).clamp(min=1)
        fields = [batch[name].double().tolist() for name in ("area", "image_id", "image_points")]
        rows = zip(found, scores.double().tolist(), *fields, strict=True)
        for person, score, area, image_id, truth in rows:
            self._persons.append(
                {
                    "points": person,
                    "score": score,
                    "area": area,
                    "image_id": int(image_id),
                    "truth": truth,
                }
            )

    def compute(self) -> dict[str, float]:
        """Return the metrics by name, over all ranks."""
        (persons,) = gather_lists([self._persons])
        return keypoint_precision(persons, self._sigmas)


def to_image(points: Tensor, batch: Batch) -> Tensor:
    """Return points (N, K, 2) of the inputs in pixels of the stored images."""
    crops: Tensor = batch["crops"].to(points.dtype)
    return points @ crops[:, :, :2].mT + crops[:, None, :, 2]


def keypoint_precision(
    persons: Sequence[Mapping[str, Any]], sigmas: Sequence[float]
) -> dict[str, float]:
    """Return COCO's metrics of keypoints.

    >>> truth = [[4.0 * joint, 5.0, 2.0] for joint in range(3)]
    >>> person = {"points": [row[:2] for row in truth], "score": 0.9, "truth": truth}
    >>> found = keypoint_precision([{**person, "area": 5000.0, "image_id": 1}], [0.05] * 3)
    >>> found["ap"], found["ar"]
    (1.0, 1.0)

    Args:
        persons: found and true `points` (K × 2) and `truth` (K × 3), in pixels of the image, the
            third number 0 for no label; `score`, `area` in pixels, `image_id`.
        sigmas: (K,) of the joints.

    Returns:
        `ap`, `ap50`, `ap75`, `ap_medium`, `ap_large` and the recalls `ar` to `ar_large`; a size
        without persons has none.
    """
    coco, evaluator = _import_evaluator()
    kept = _without_duplicates(persons, torch.tensor(sigmas))
    annotations = []
    for number, person in enumerate(persons, 1):
        x, y, _ = zip(*person["truth"], strict=True)
        annotations.append(
            {
                "id": number,
                "image_id": person["image_id"],
                "category_id": 1,
                "keypoints": [value for row in person["truth"] for value in row],
                "num_keypoints": sum(row[2] > 0 for row in person["truth"]),
                "area": person["area"],
                "bbox": [min(x), min(y), max(x) - min(x), max(y) - min(y)],
                "iscrowd": 0,
            }
        )
    names = [str(joint) for joint in range(len(sigmas))]
    truth = coco(
        {
            "images": [{"id": image_id} for image_id in {p["image_id"] for p in persons}],
            "categories": [{"id": 1, "name": "person", "keypoints": names}],
            "annotations": annotations,
        }
    )
    found = [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "keypoints": [value for x, y in person["points"] for value in (x, y, 1.0)],
            "score": person["score"],
        }
        for person in kept
    ]
    run = evaluator(truth, truth.loadRes(found), "keypoints", kpt_oks_sigmas=list(sigmas))
    run.evaluate()
    run.accumulate()
    run.summarize()
    values = zip((*SUMMARY, *RECALLS), run.stats, strict=False)
    # COCO gives -1 where there is no person.
    defined = {name: float(value) for name, value in values if value >= 0}
    return {"ap": math.nan} | defined


def similarity(first: Tensor, second: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """Return the mean over joints of exp(-d² / (2 · area · (2σ)²)), in float64.

    Args:
        first: (..., K, 2).
        second: (..., K, 2).
        area: (...), of the persons in pixels.
        sigmas: (K,).
    """
    distance = (first.double() - second.double()).square().sum(-1)
    spread = 2 * area.double()[..., None] * (2 * sigmas.double()).square()
    return torch.exp(-distance / spread.clamp(min=torch.finfo(torch.float64).eps)).mean(-1)


def _without_duplicates(
    persons: Sequence[Mapping[str, Any]], sigmas: Tensor
) -> list[Mapping[str, Any]]:
    """Return the persons of each image that are no copies of one with a higher score."""
    by_image: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for person in sorted(persons, key=lambda person: -person["score"]):
        by_image[person["image_id"]].append(person)
    kept: list[Mapping[str, Any]] = []
    for group in by_image.values():
        points = torch.tensor([person["points"] for person in group])
        areas = torch.tensor([person["area"] for person in group])
        chosen: list[int] = []
        for index in range(len(group)):
            area = (areas[chosen] + areas[index]) / 2
            alike = similarity(points[chosen], points[index], area, sigmas)
            if not bool((alike > MAX_OKS).any()):
                chosen.append(index)
        kept += [group[index] for index in chosen]
    return kept


def _import_evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise NotInstalledError("average precision", "faster_coco_eval") from error
    return COCO, COCOeval_faster

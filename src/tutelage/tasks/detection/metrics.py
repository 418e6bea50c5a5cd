"""COCO's average precision of boxes, computed by faster-coco-eval from the images of all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.core import Batch, Metrics
from tutelage.core.distributed import gather_lists
from tutelage.errors import NotInstalledError, UserError
from tutelage.tasks._checks import refuse_undefined, warn_once

# The first numbers of COCO's summary, in its order.
SUMMARY = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
TRUTH = ("labels", "area", "iscrowd")  # of a true box, beside its corners
DETECTED = ("scores", "labels")  # of a detection
RECALL_AT_100 = 8  # index of the recall with at most 100 boxes an image in that summary


class DetectionMetrics(Metrics):
    """Average precision of boxes.

    - `ap`: mean over IoU .50 to .95; `ap50` and `ap75` at one IoU
    - `ap_small`, `ap_medium`, `ap_large`: by area, up to 32², up to 96², above
    - `ar@100`: recall with at most 100 boxes an image
    - `ap/<name>`: by class, if there are several
    - with a teacher `teacher_ap`
    - `num_samples`: the number of images

    All are shares, 0 to 1. A size or class without boxes has no metric; without any box `ap` is
    NaN, with a line on standard error.

    Args:
        detections: reads (output, batch) as one dict an image: `boxes` (n, 4) corners in the
            image's pixels, `labels`, `scores`.
        names: of the classes by label, from label 1 on; classes beyond are called by their number.
    """

    def __init__(
        self,
        detections: Callable[[Any, Batch], Sequence[Mapping[str, Tensor]]],
        names: Sequence[str] = (),
    ) -> None:
        _import_evaluator()  # fails now rather than after an epoch
        self._detections = detections
        self._names = names
        self._truth: list[_BoxTable] = []
        self._student: list[_BoxTable] = []
        self._teacher: list[_BoxTable] = []

    def update(self, output: Any, batch: Batch, teacher: Any = None) -> None:
        """Add one batch."""
        ids = torch.stack([torch.as_tensor(target["image_id"]) for target in batch.labels])
        self._truth.append(_BoxTable.of(batch.labels, ids, TRUTH))
        self._student += self._read(output, batch)
        if teacher is not None:
            self._teacher += self._read(teacher, batch)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name.

        Raises:
            UserError: If no image was seen, on any rank, or one was seen twice, or if a box or a
                score is NaN.
        """
        parts = [self._truth, self._student, self._teacher]
        plain = [[image for table in part for image in table.images()] for part in parts]
        truth, student, teacher = gather_lists(plain)
        for role, images in (("network", student), ("teacher", teacher)):
            count = sum(not _is_finite(image) for image in images)
            refuse_undefined(role, count, f"{len(images)} images")
        image_ids = [image["image_id"] for image in truth]
        if not image_ids or len(set(image_ids)) != len(image_ids):
            raise UserError(
                "detections are evaluated on each image once; "
                "check data.root, the split and the image ids"
            )
        metrics = average_precision(truth, student, self._names)
        if math.isnan(metrics["ap"]):
            warn_once(
                f"no box of a single object is in the {len(image_ids)} images, so their average "
                "precision is undefined (NaN); check the annotations of that part"
            )
        if teacher:
            metrics["teacher_ap"] = average_precision(truth, teacher)["ap"]
        metrics["num_samples"] = float(len(image_ids))
        return metrics

    def _read(self, output: Any, batch: Batch) -> list[_BoxTable]:
        """Return the detections of an output."""
        found = self._detections(output, batch)
        if len(found) != len(batch.labels):
            raise UserError(
                f"the network gives detections of {len(found)} images for a batch of "
                f"{len(batch.labels)}; it has to answer every image"
            )
        ids = torch.stack([torch.as_tensor(target["image_id"]) for target in batch.labels])
        return [_BoxTable.of(found, ids, DETECTED)]


@dataclass(frozen=True)
class _BoxTable:
    """The boxes of the images of a batch, on their device until all batches are there.

    To read a number from an accelerator is to wait for it, so nothing is read batch by batch.

    Attributes:
        fields: names of the numbers of a box, after its four corners.
        image_ids: (N,) int64.
        counts: number of boxes of each image.
        columns: for the corners (n, 4) and each field (n,), those of all images in a row.
    """

    fields: Sequence[str]
    image_ids: Tensor
    counts: Sequence[int]
    columns: Sequence[Tensor]

    @classmethod
    def of(
        cls, images: Sequence[Mapping[str, Tensor]], ids: Tensor, fields: Sequence[str]
    ) -> _BoxTable:
        """Return the boxes of one dict an image."""
        names = ("boxes", *fields)
        columns = [torch.cat([image[name] for image in images]).detach() for name in names]
        return cls(fields, ids, [len(image["boxes"]) for image in images], columns)

    def images(self) -> Iterator[dict[str, Any]]:
        """Give the boxes image by image, as plain numbers."""
        columns = [column.cpu().tolist() for column in self.columns]
        start = 0
        for image_id, count in zip(self.image_ids.tolist(), self.counts, strict=True):
            end = start + count
            image = {"image_id": image_id, "boxes": columns[0][start:end]}
            for name, values in zip(self.fields, columns[1:], strict=True):
                image[name] = values[start:end]
            yield image
            start = end


def average_precision(
    truth: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    names: Sequence[str] = (),
) -> dict[str, float]:
    """Return COCO's metrics of boxes.

    >>> box = {"image_id": 0, "boxes": [[0.0, 0.0, 9.0, 9.0]], "labels": [1]}
    >>> truth = {**box, "area": [81.0], "iscrowd": [False]}
    >>> average_precision([truth], [{**box, "scores": [0.7]}])["ap"]
    1.0

    Args:
        truth: per image `image_id`, and per box `boxes` (corners), `labels`, `area`, `iscrowd`.
        detections: per image `image_id`, and per box `boxes`, `labels`, `scores`.
        names: as in `DetectionMetrics`.

    Returns:
        The metrics of `DetectionMetrics` without `teacher_ap` and `num_samples`; of them `ap`
        alone, NaN, if there is no true box.
    """
    coco, evaluator = _import_evaluator()
    labels = sorted({label for image in truth for label in image["labels"]})
    annotations = _annotations(truth)
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    true_boxes = coco(
        {
            "images": [{"id": image["image_id"]} for image in truth],
            "categories": [{"id": label, "name": str(label)} for label in labels],
            "annotations": annotations,
        }
    )
    # The evaluator knows no class that is not in the truth; such boxes count nowhere.
    known = set(labels)
    boxes = [entry for entry in _annotations(detections) if entry["category_id"] in known]
    run = evaluator(true_boxes, true_boxes.loadRes(boxes), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    metrics = {name: float(value) for name, value in zip(SUMMARY, run.stats, strict=False)}
    metrics["ar@100"] = float(run.stats[RECALL_AT_100])
    if len(labels) > 1:
        # (IoU, recall, class) of boxes of all sizes, at most 100 an image.
        precision = torch.as_tensor(run.eval["precision"])[:, :, :, 0, -1]
        for index, label in enumerate(labels):
            name = names[label - 1] if 0 < label <= len(names) else str(label)
            metrics[f"ap/{name}"] = float(precision[:, :, index].mean())
    # COCO gives -1 where there is no box.
    defined = {name: value for name, value in metrics.items() if value >= 0}
    return {"ap": math.nan} | defined


def _annotations(images: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return all boxes in COCO's format, image by image."""
    annotations = []
    for image in images:
        for index, (x1, y1, x2, y2) in enumerate(image["boxes"]):
            width = x2 - x1
            height = y2 - y1
            annotation = {
                "image_id": image["image_id"],
                "category_id": int(image["labels"][index]),
                "bbox": [x1, y1, width, height],
                "area": image["area"][index] if "area" in image else width * height,
                "iscrowd": int(image["iscrowd"][index]) if "iscrowd" in image else 0,
            }
            if "scores" in image:
                annotation["score"] = image["scores"][index]
            annotations.append(annotation)
    return annotations


def _is_finite(image: Mapping[str, Any]) -> bool:
    numbers = [*image["scores"], *(side for box in image["boxes"] for side in box)]
    return all(map(math.isfinite, numbers))


def _import_evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise NotInstalledError("average precision", "faster_coco_eval") from error
    return COCO, COCOeval_faster

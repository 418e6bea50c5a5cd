"""Turn targets and outputs into what a report draws over the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tutelage.core import Overlay

MIN_SCORE = 0.05  # boxes below are never shown
MAX_BOXES = 100  # as many as COCO counts in an image


def box_overlays(images: Sequence[Mapping[str, Tensor]]) -> list[Overlay]:
    """Return the boxes of each image, those with the highest scores first.

    >>> boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 9, 9], [2, 2, 3, 3]])
    >>> scores = torch.tensor([0.2, 0.9, 0.01])
    >>> detections = {"boxes": boxes, "labels": torch.tensor([1, 2, 1]), "scores": scores}
    >>> box_overlays([detections])[0].labels
    tensor([2, 1])

    Args:
        images: one mapping an image, with `boxes` (n, 4) and `labels` (n,). With `scores` (n,) it
            is a detector's output, of which boxes below `MIN_SCORE` are left out; without, it is
            the truth, of which regions of many objects (`iscrowd`) are left out.
    """
    overlays = []
    for image in images:
        boxes = image["boxes"].detach().float()
        labels = image["labels"]
        if "scores" in image:
            scores = image["scores"].detach()
            index = scores.argsort(descending=True, stable=True)[:MAX_BOXES]
            index = index[scores[index] >= MIN_SCORE]
            overlays.append(Overlay(boxes[index], labels[index], scores[index]))
        else:
            single = ~image.get("iscrowd", torch.zeros_like(labels)).bool()
            overlays.append(Overlay(boxes[single], labels[single]))
    return overlays


def mask_overlays(masks: Tensor) -> list[Overlay]:
    """Return the class of every pixel of each image.

    >>> [overlay.mask.shape for overlay in mask_overlays(torch.randn(2, 5, 8, 9).argmax(1))]
    [torch.Size([8, 9]), torch.Size([8, 9])]

    Args:
        masks: (N, H, W) integers: true classes, or the argmax of logits over the classes.
    """
    return [Overlay(mask=mask) for mask in masks.detach()]

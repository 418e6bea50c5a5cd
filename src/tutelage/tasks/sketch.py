"""From targets and outputs to what a report draws over the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tutelage.core import Sketch

LEAST, MOST = 0.05, 100  # a box that is less sure is never shown; COCO counts so many boxes of an image


def boxes_sketch(found: Sequence[Mapping[str, Tensor]]) -> list[Sketch]:
    """Return the boxes of each image, the surest first.

    >>> boxes, scores = torch.tensor([[0.0, 0, 4, 4], [1, 1, 9, 9], [2, 2, 3, 3]]), torch.tensor([0.2, 0.9, 0.01])
    >>> boxes_sketch([{"boxes": boxes, "labels": torch.tensor([1, 2, 1]), "scores": scores}])[0].labels
    tensor([2, 1])

    Args:
        found: an image's target, `boxes` (n, 4) and `labels` (n,), without regions of many objects (`iscrowd`); or a
            detector's output, which has `scores` (n,), without what is not sure at all.
    """
    sketches = []
    for image in found:
        boxes, labels, scores = image["boxes"].detach().float(), image["labels"], image.get("scores")
        if scores is not None:
            kept = scores.argsort(descending=True, stable=True)[:MOST]
            kept = kept[scores[kept] >= LEAST]
            scores = scores.detach()[kept]
        else:
            kept = ~image.get("iscrowd", torch.zeros_like(labels)).bool()
        sketches.append(Sketch(boxes[kept], labels[kept], scores))
    return sketches


def mask_sketch(classes: Tensor) -> list[Sketch]:
    """Return the class of every pixel of each image.

    >>> [sketch.mask.shape for sketch in mask_sketch(torch.randn(2, 5, 8, 9).argmax(1))]
    [torch.Size([8, 9]), torch.Size([8, 9])]

    Args:
        classes: (N, H, W) integers: masks, or the argmax over the classes of logits.
    """
    return [Sketch(mask=mask) for mask in classes.detach()]

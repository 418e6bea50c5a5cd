"""What the report draws of real detectors and segmenters, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.models import faster_rcnn, fcos, fpn_backbone, retinanet
from tutelage.tasks import Detection
from tutelage.tasks.sketch import LEAST, MOST, boxes_sketch, mask_sketch

IMAGES = [torch.rand(3, 96, 128), torch.rand(3, 80, 64)]


def truth(count: int) -> dict[str, Tensor]:
    corners = torch.rand(count, 2) * 40
    crowd = torch.arange(count) == 1
    return {"boxes": torch.cat([corners, corners + 12], 1), "labels": torch.arange(count) + 1, "iscrowd": crowd}


@pytest.mark.parametrize("make", [fcos, retinanet, faster_rcnn])
def test_a_detector_is_drawn_with_its_surest_boxes(make: Any) -> None:
    extra, strides = ("pool", [8, 16, 32, 64]) if make is faster_rcnn else (None, [8, 16, 32])
    network = make(fpn_backbone("resnet18", 32, extra=extra), 4, sides=[64], strides=strides).eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name.endswith("cls_logits"):
            nn.init.normal_(module.weight, std=0.2)  # so that some scores are high
            nn.init.zeros_(module.bias)
    batch = (IMAGES, [truth(3), truth(0)], torch.arange(2))
    task = Detection(num_classes=4)
    with torch.no_grad():
        out = network(*task.inputs(batch))
    for found, image, given in zip(task.sketch(batch, out), IMAGES, out, strict=True):
        assert found.boxes is not None
        assert found.labels is not None
        assert found.scores is not None
        count = min(MOST, int((given["scores"] >= LEAST).sum()))
        assert len(found.boxes) == len(found.labels) == len(found.scores) == count
        assert (found.scores.diff() <= 0).all()
        assert (found.boxes[:, 0::2] <= image.shape[2]).all()
    assert sum(len(found.boxes) for found in task.sketch(batch, out)) > 0
    first, second = task.sketch(batch)
    assert first.labels.tolist() == [1, 3]  # a region of many objects is no single box
    assert first.scores is second.scores is None
    assert second.boxes.shape == (0, 4)


def test_a_segmenter_is_drawn_with_the_class_of_each_pixel() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, 64, 96))["out"]
    for found, scores in zip(mask_sketch(logits.argmax(1)), logits, strict=True):
        assert found.mask is not None
        assert found.mask.shape == (64, 96)
        assert torch.equal(scores.max(0).indices, found.mask)
        assert found.boxes is None


def test_no_more_than_a_hundred_boxes() -> None:
    boxes = torch.rand(300, 4)
    (found,) = boxes_sketch([{"boxes": boxes, "labels": torch.ones(300), "scores": torch.linspace(0, 1, 300)}])
    assert found.boxes is not None
    assert torch.equal(found.boxes, boxes.flip(0)[:MOST])

"""What the report draws of real detectors and segmenters, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.core import Batch
from tutelage.core.overlay import DrawsOverlays
from tutelage.models import faster_rcnn, fcos, fpn_backbone, retinanet
from tutelage.tasks import Classification, Detection, Segmentation, TransformerDetection
from tutelage.tasks._overlays import MAX_BOXES, MIN_SCORE, box_overlays, mask_overlays

IMAGES = [torch.rand(3, 96, 128), torch.rand(3, 80, 64)]


def truth(count: int) -> dict[str, Tensor]:
    corners = torch.rand(count, 2) * 40
    crowd = torch.arange(count) == 1
    return {
        "boxes": torch.cat([corners, corners + 12], 1),
        "labels": torch.arange(count) + 1,
        "iscrowd": crowd,
    }


@pytest.mark.parametrize("make", [fcos, retinanet, faster_rcnn])
def test_a_detector_is_drawn_with_its_best_boxes(make: Any) -> None:
    extra, strides = ("pool", [8, 16, 32, 64]) if make is faster_rcnn else (None, [8, 16, 32])
    network = make(fpn_backbone("resnet18", 32, extra=extra), 4, sides=[64], strides=strides).eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name.endswith("cls_logits"):
            nn.init.normal_(module.weight, std=0.2)  # so that some scores are high
            nn.init.zeros_(module.bias)
    batch = Batch.of((IMAGES, [truth(3), truth(0)], torch.arange(2)))
    task = Detection(num_classes=4)
    with torch.no_grad():
        output = network(*task.inputs(batch))
    overlays = task.overlays(batch, output)
    for overlay, image, detections in zip(overlays, IMAGES, output, strict=True):
        assert overlay.boxes is not None
        assert overlay.labels is not None
        assert overlay.scores is not None
        count = min(MAX_BOXES, int((detections["scores"] >= MIN_SCORE).sum()))
        assert len(overlay.boxes) == len(overlay.labels) == len(overlay.scores) == count
        assert (overlay.scores.diff() <= 0).all()
        assert (overlay.boxes[:, 0::2] <= image.shape[2]).all()
    assert sum(len(overlay.boxes) for overlay in overlays) > 0
    first, second = task.overlays(batch)
    assert first.labels.tolist() == [1, 3]  # a region of many objects is no single box
    assert first.scores is second.scores is None
    assert second.boxes.shape == (0, 4)


def test_a_segmenter_is_drawn_with_the_class_of_each_pixel() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    with torch.no_grad():
        logits = network(torch.rand(2, 3, 64, 96))["out"]
    for overlay, scores in zip(mask_overlays(logits.argmax(1)), logits, strict=True):
        assert overlay.mask is not None
        assert overlay.mask.shape == (64, 96)
        assert torch.equal(scores.max(0).indices, overlay.mask)
        assert overlay.boxes is None


def test_no_more_than_a_hundred_boxes() -> None:
    boxes = torch.rand(300, 4)
    (overlay,) = box_overlays(
        [{"boxes": boxes, "labels": torch.ones(300), "scores": torch.linspace(0, 1, 300)}]
    )
    assert overlay.boxes is not None
    assert torch.equal(overlay.boxes, boxes.flip(0)[:MAX_BOXES])


def test_tasks_say_by_a_protocol_that_they_draw() -> None:
    assert isinstance(Detection(3), DrawsOverlays)
    assert isinstance(TransformerDetection(3), DrawsOverlays)
    assert isinstance(Segmentation(3), DrawsOverlays)
    assert not isinstance(Classification(3), DrawsOverlays)

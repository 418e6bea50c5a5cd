from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import nn

from tutelage import UserError
from tutelage.models import faster_rcnn, fcos, fpn_backbone, retinanet


@pytest.mark.parametrize(
    ("name", "levels", "extra", "sizes"),
    [
        ("resnet18", (3, 4, 5), "p6p7", {"0": 8, "1": 4, "2": 2, "p6": 1, "p7": 1}),
        ("resnet18", (2, 3, 4, 5), "pool", {"0": 16, "1": 8, "2": 4, "3": 2, "pool": 1}),
        ("resnet50", (5, 3), None, {"0": 8, "1": 2}),
        ("mobilenetv3_small_050", (3, 4, 5), None, {"0": 8, "1": 4, "2": 2}),
        ("resnet10t", (2, 3), "p6p7", {"0": 16, "1": 8, "p6": 4, "p7": 2}),
    ],
)
def test_a_pyramid_has_the_requested_levels(
    name: str,
    levels: tuple[int, ...],
    extra: Literal["p6p7", "pool"] | None,
    sizes: dict[str, int],
) -> None:
    backbone = fpn_backbone(name, 32, levels, extra).eval()
    maps = backbone(torch.rand(1, 3, 64, 64))
    shapes = {level: tuple(feature.shape) for level, feature in maps.items()}
    assert shapes == {level: (1, 32, size, size) for level, size in sizes.items()}


def test_nothing_is_frozen_by_default() -> None:
    assert all(p.requires_grad for p in fpn_backbone("resnet18", 32).parameters())
    frozen = fpn_backbone("resnet18", 32, frozen=True)
    assert not any(p.requires_grad for p in frozen.body.layer1.parameters())
    assert all(p.requires_grad for p in frozen.body.layer2.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())


@pytest.mark.parametrize("build_detector", [fcos, retinanet, faster_rcnn])
def test_anchors_suit_the_strides(build_detector: Callable[..., nn.Module]) -> None:
    network = build_detector(
        fpn_backbone("resnet18", 32, extra=None), 3, [64], strides=[8, 16, 32]
    ).eval()
    detections = network([torch.rand(3, 64, 80)])
    assert set(detections[0]) == {"boxes", "labels", "scores"}


def test_the_box_head_trains_on_as_many_proposals_as_stated() -> None:
    backbone = fpn_backbone("resnet10t", 8, extra=None)
    network = faster_rcnn(backbone, 3, [64], strides=[8, 16, 32], proposals=24)
    scored = []
    network.roi_heads.box_predictor.register_forward_hook(
        lambda module, inputs, outputs: scored.append(outputs[0].shape)
    )
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    network([torch.rand(3, 64, 64)] * 2, [target] * 2)
    assert scored == [(2 * 24, 3)]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UserError, match=r"extra must be one of .*, got 'p8'"):
        fpn_backbone("resnet18", extra="p8")
    with pytest.raises(
        UserError, match=r"levels must be one or more of \(2, 3, 4, 5\), got \[1, 2\]"
    ):
        fpn_backbone("resnet18", levels=(1, 2))
    with pytest.raises(
        UserError, match=r"there is no network 'resnet19'; did you mean .*'resnet18'"
    ):
        fpn_backbone("resnet19")
    with pytest.raises(
        UserError, match=r"32 groups, so the .* width must be a multiple of 32, got 48"
    ):
        fcos(fpn_backbone("resnet18", 48), 2)

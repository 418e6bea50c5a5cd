from __future__ import annotations

import pytest
import torch

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
def test_a_pyramid_has_the_levels_that_are_asked_for(
    name: str, levels: tuple[int, ...], extra: str | None, sizes: dict[str, int]
) -> None:
    backbone = fpn_backbone(name, 32, levels, extra).eval()
    maps = backbone(torch.rand(1, 3, 64, 64))
    assert {key: tuple(value.shape) for key, value in maps.items()} == {k: (1, 32, s, s) for k, s in sizes.items()}


def test_nothing_is_frozen_unless_it_is_asked_for() -> None:
    assert all(p.requires_grad for p in fpn_backbone("resnet18", 32).parameters())
    frozen = fpn_backbone("resnet18", 32, frozen=True)
    assert not any(p.requires_grad for p in frozen.body.layer1.parameters())
    assert all(p.requires_grad for p in frozen.body.layer2.parameters())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.modules())


@pytest.mark.parametrize("make", [fcos, retinanet, faster_rcnn])
def test_anchors_suit_the_strides(make) -> None:
    network = make(fpn_backbone("resnet18", 32, extra=None), 3, [64], strides=[8, 16, 32]).eval()
    found = network([torch.rand(3, 64, 80)])
    assert set(found[0]) == {"boxes", "labels", "scores"}


def test_mistakes_are_sentences() -> None:
    with pytest.raises(UserError, match="extra is one of"):
        fpn_backbone("resnet18", extra="p8")
    with pytest.raises(UserError, match="levels are out of 2 to 5"):
        fpn_backbone("resnet18", levels=(1, 2))
    with pytest.raises(UserError, match=r"there is no network 'resnet19'; did you mean .*'resnet18'"):
        fpn_backbone("resnet19")
    with pytest.raises(UserError, match="32 groups, so that divides the width, which is 48"):
        fcos(fpn_backbone("resnet18", 48), 2)

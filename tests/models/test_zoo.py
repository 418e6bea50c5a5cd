from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import tutelage.models as models
from tutelage import FeatureTaps, UserError

# Counted by instantiating HobbitLong/RepDistiller@b84f547
# `models.model_dict[...](num_classes=100)`; the papers' tables round them.
PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "mobilenet_v2": 812_836,
    "shufflenet_v1": 949_258,
    "shufflenet_v2": 1_355_528,
}
SMALL = [
    "resnet8",
    "wrn_16_1",
    "vgg8",
    "mobilenet_v2",
    "shufflenet_v1",
    "shufflenet_v2",
    "small_cnn",
]


def build(name: str) -> Callable[..., nn.Module]:
    return getattr(models, name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_equal_the_papers(name: str) -> None:
    assert sum(p.numel() for p in build(name)().parameters()) == PARAMETERS[name]


def test_every_builder_is_counted() -> None:
    general = {"cifar_resnet", "wide_resnet", "small_cnn"}
    tested_elsewhere = {"faster_rcnn", "fcos", "fpn_backbone", "retinanet", "unet"}
    tested_elsewhere |= {"deconv_pose", "small_pose", "stacked_hourglass", "vitpose"}
    builders = {name for name in models.__all__ if name == name.lower()}
    assert builders - general - tested_elsewhere == set(PARAMETERS)


@pytest.mark.parametrize("size", [32, 28])
@pytest.mark.parametrize("name", SMALL)
def test_stages_shrink_and_taps_survive_what_comes_after(name: str, size: int) -> None:
    net = build(name)(num_classes=7, channels=3).eval()
    stages = [part for part, _ in net.named_children() if part.startswith("stage")]
    assert len(stages) >= 3
    output = FeatureTaps(net, stages)(torch.rand(2, 3, size, size))
    assert output.output.shape == (2, 7)
    heights = [output.features[stage].shape[-1] for stage in stages]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < heights[0]
    with torch.no_grad():
        names = [name for name, _ in net.named_children()]
        rest = net[names.index(stages[-1]) + 1 :]
        assert torch.allclose(rest(output.features[stages[-1]]), output.output, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    net = build(name)(num_classes=5, channels=3)
    net(torch.randn(4, 3, 32, 32)).logsumexp(1).sum().backward()
    for part, parameter in net.named_parameters():
        assert parameter.grad is not None, part
        assert torch.isfinite(parameter.grad).all(), part


@pytest.mark.parametrize("name", SMALL)
def test_weights_round_trip_and_gray_images(name: str) -> None:
    first = build(name)(num_classes=5, channels=1).eval()
    second = build(name)(num_classes=5, channels=1).eval()
    second.load_state_dict(first.state_dict())
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(first(images), second(images))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="num_classes must be at least 1, got 0"):
        models.resnet8(num_classes=0)
    with pytest.raises(UserError, match="channels must be at least 1, got 0"):
        models.vgg8(channels=0)
    with pytest.raises(UserError, match=r"depth 6n \+ 2"):
        models.cifar_resnet(9, (16, 16, 32, 64))
    with pytest.raises(UserError, match=r"depth 6n \+ 4"):
        models.wide_resnet(12, 1)
    with pytest.raises(UserError, match="small_cnn needs width of at least 1, got 0"):
        models.small_cnn(width=0)

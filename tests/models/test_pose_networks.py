"""Networks for poses: outputs, strides, branches, Hugging Face's ViTPose."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torchvision.models import resnet18

from tutelage.core import NoTeacher
from tutelage.errors import UserError
from tutelage.methods import OKDHP
from tutelage.models import PoseNetwork, deconv_pose, small_pose, stacked_hourglass, vitpose

BACKBONE = {
    "image_size": [64, 64],
    "patch_size": [16, 16],
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "out_features": ["stage2"],
}
VITPOSE = {"num_labels": 5, "scale_factor": 4, "backbone_config": BACKBONE}
NETWORKS = {
    "small": lambda: small_pose(5, width=8, stages=2),
    "hourglass": lambda: stacked_hourglass(5, 2, width=8, depth=2),
    "torchvision": lambda: deconv_pose("shufflenet_v2_x0_5", 5, width=8, source="torchvision"),
    "deconv": lambda: deconv_pose("resnet10t", 5, width=16),
    "vitpose": lambda: vitpose(VITPOSE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_of_every_network_train_and_the_deployed_one_is_the_network(name: str) -> None:
    network = NETWORKS[name]()
    assert isinstance(network, PoseNetwork)
    # Hooks of transformers cannot be pickled.
    copied = copy.deepcopy(network) if name == "vitpose" else pickle.loads(pickle.dumps(network))
    images = torch.rand(2, 3, 64, 64)
    maps = network.eval()(images)
    assert maps.shape[2:] == (5, 16, 16)
    assert maps.shape[1] == len(network.stages)
    method = OKDHP()
    branched = method.build_student(network, NoTeacher()).eval()
    output = branched(images)
    assert torch.equal(output["heatmaps"], maps)
    assert not torch.equal(output["auxiliary"]["branch1"][:, -1], maps[:, -1])
    assert torch.equal(method.deploy(branched)(images), maps)
    branched.train()(images)["ensemble"].sum().backward()
    torch.testing.assert_close(copied.eval()(images), maps)


def test_vitpose_is_that_of_transformers() -> None:
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    torch.manual_seed(3)
    ours = vitpose(VITPOSE).eval()
    torch.manual_seed(3)
    config = VitPoseConfig(
        num_labels=5, scale_factor=4, backbone_config=VitPoseBackboneConfig(**BACKBONE)
    )
    theirs = VitPoseForPoseEstimation(config).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours(images)[:, 0], theirs(images).heatmaps)


def test_the_stride_of_a_deconvolution_head() -> None:
    network = deconv_pose("resnet10t", 3, width=8, stride=8).eval()
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 1, 3, 8, 8)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="timm has no network 'resnet19'; did you mean"):
        deconv_pose("resnet19")
    with pytest.raises(UserError, match="stride of 2, 4 or 8, got 3"):
        deconv_pose("resnet10t", stride=3)
    with pytest.raises(UserError, match=r"ViTPose takes images of \(64, 64\), got \(64, 32\)"):
        vitpose(VITPOSE)(torch.rand(1, 3, 64, 32))
    with pytest.raises(UserError, match="a config or the name of pretrained weights"):
        vitpose()
    with pytest.raises(UserError, match="has one stage a branch, not 2"):
        deconv_pose("resnet10t", 3, width=8).make_stages(2)
    with pytest.raises(UserError, match="small_pose has a stride of 2 or 4, got 8"):
        small_pose(3, stride=8)
    with pytest.raises(UserError, match="a width that is a multiple of 4, got 10"):
        stacked_hourglass(3, width=10)


def test_a_backbone_of_torchvision_ends_before_its_classifier() -> None:
    network = deconv_pose("resnet18", 3, width=8, source="torchvision").eval()
    whole = resnet18().eval()
    names = {name.removeprefix("stem.body.") for name in network.state_dict()}
    assert {name for name in whole.state_dict() if not name.startswith("fc.")} <= names
    assert network(torch.zeros(1, 3, 96, 64)).shape == (1, 1, 3, 24, 16)
    stem = {k.removeprefix("body."): v for k, v in network.stem.state_dict().items()}
    whole.load_state_dict(stem, strict=False)
    images = torch.rand(1, 3, 64, 64)
    x = whole.maxpool(whole.relu(whole.bn1(whole.conv1(images))))
    x = whole.layer4(whole.layer3(whole.layer2(whole.layer1(x))))
    assert torch.equal(network.stem(images), x)


def test_networks_that_torchvision_cannot_give_are_named() -> None:
    with pytest.raises(UserError, match="torchvision has no network 'resnet19'; did you mean"):
        deconv_pose("resnet19", source="torchvision")
    with pytest.raises(UserError, match="sides are halved; take another network"):
        deconv_pose("squeezenet1_1", source="torchvision")
    with pytest.raises(UserError, match="source is 'timm' or 'torchvision', got 'hub'"):
        deconv_pose("resnet18", source="hub")  # type: ignore[arg-type]

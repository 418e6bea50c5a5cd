"""A backbone with a head of transposed convolutions (B. Xiao, H. Wu, Y. Wei, ECCV 2018).

"Simple Baselines for Human Pose Estimation and Tracking", arXiv 1804.06208.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from tutelage.errors import NotInstalledError, UserError, near_misses
from tutelage.models._torchvision import torchvision_body
from tutelage.models.blocks import check_counts
from tutelage.models.pose_network import PoseNetwork

STRIDES = (2, 4, 8)


class DeconvHead(nn.Module):
    """Transposed convolutions 4×4 that double the size, and a 1×1 convolution for the maps.

    Args:
        in_channels: of the backbone's features.
        num_joints: K.
        width: channels of the transposed convolutions.
        doublings: how many of them there are.
    """

    def __init__(self, in_channels: int, num_joints: int, width: int, doublings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(doublings):
            channels = in_channels if index == 0 else width
            layers += [
                nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width if doublings else in_channels, num_joints, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the maps."""
        decoded = self.body(features)
        maps: Tensor = self.head(decoded)
        return decoded, maps


class DeconvHeads:
    """Makes heads; a class, so that networks can be pickled.

    Args:
        in_channels: as `DeconvHead`.
        num_joints: as `DeconvHead`.
        width: as `DeconvHead`.
        doublings: as `DeconvHead`.
    """

    def __init__(self, in_channels: int, num_joints: int, width: int, doublings: int) -> None:
        self.in_channels = in_channels
        self.num_joints = num_joints
        self.width = width
        self.doublings = doublings

    def __call__(self, count: int) -> list[nn.Module]:
        """Return a new head.

        Raises:
            UserError: For more than one, since heads do not follow each other.
        """
        if count != 1:
            raise UserError(
                f"a network with a deconvolution head has one stage a branch, not {count}; leave "
                "depths out, or take stacked_hourglass"
            )
        return [DeconvHead(self.in_channels, self.num_joints, self.width, self.doublings)]


class LastFeature(nn.Module):
    """The last map of a timm network that gives a list of them.

    Args:
        body: made with `features_only=True` and one index.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, C, h, w)."""
        features: Tensor = self.body(images)[-1]
        return features


def deconv_pose(
    backbone: str,
    num_joints: int = 17,
    *,
    width: int = 256,
    stride: int = 4,
    pretrained: bool = False,
    source: Literal["timm", "torchvision"] = "timm",
) -> PoseNetwork:
    """Return a network of timm or torchvision with a head of transposed convolutions.

    Its head is the only stage, so that branches share the whole backbone.

    >>> import torch
    >>> network = deconv_pose("mobilenetv3_small_050", num_joints=5, width=32)
    >>> network(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1, 5, 16, 16])

    Args:
        backbone: name of a convolutional network, such as `resnet18`.
        num_joints: K.
        width: channels of the head.
        stride: of the maps, 2, 4 or 8.
        pretrained: whether to load the weights that come with it.
        source: library of the network.

    Raises:
        UserError: If the library is not installed or knows no such network, or an argument is out
            of range.
    """
    if stride not in STRIDES:
        raise UserError(f"deconv_pose has a stride of 2, 4 or 8, got {stride}")
    check_counts("deconv_pose", {"num_joints": num_joints, "width": width})
    if source == "torchvision":
        body, channels, reduction = torchvision_body(backbone, pretrained=pretrained)
    elif source == "timm":
        body, channels, reduction = _timm_body(backbone, pretrained=pretrained)
    else:
        raise UserError(f"source is 'timm' or 'torchvision', got {source!r}")
    doublings = round(math.log2(reduction / stride))
    factory = DeconvHeads(channels, num_joints, width, max(doublings, 0))
    return PoseNetwork(body, factory(1), width=channels, num_joints=num_joints, make_stages=factory)


def _timm_body(backbone: str, *, pretrained: bool) -> tuple[nn.Module, int, int]:
    """Return images → features (N, C, h, w), the channels C and the reduction."""
    try:
        import timm
    except ImportError as error:
        instead = ", or set source to 'torchvision'"
        raise NotInstalledError("deconv_pose", "timm", instead=instead) from error
    if backbone not in timm.list_models():
        raise UserError(
            f"timm has no network {backbone!r}{near_misses(backbone, timm.list_models())}"
        )
    try:
        body = timm.create_model(
            backbone, pretrained=pretrained, features_only=True, out_indices=(-1,)
        )
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"timm gives no maps of features of {backbone} ({error}); take a convolutional one, "
            "such as resnet18"
        ) from error
    info = body.feature_info
    return LastFeature(body), info.channels()[-1], info.reduction()[-1]

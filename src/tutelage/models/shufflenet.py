"""ShuffleNets for 32×32 images.

V1: X. Zhang et al., CVPR 2018, arXiv 1707.01083. V2: N. Ma et al., ECCV 2018, arXiv 1807.11164. The
variants of the distillation papers (HobbitLong/RepDistiller): a 1×1 stem at full resolution, V1
with three groups, V2 at size 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.models.blocks import Shuffle, StagedNet, check_channels, conv_bn, staged_net

STEM_WIDTH = 24
V1_GROUPS = 3
V2_LAST_WIDTH = 1024
# (channels, units) of the stages
V1_STAGES = ((240, 4), (480, 8), (960, 4))
V2_STAGES = ((116, 4), (232, 8), (464, 4))


class GroupUnit(nn.Module):
    """Unit of V1: grouped 1×1, shuffle, depthwise 3×3, grouped 1×1.

    The input is added to the result; at stride 2 the pooled input is appended to it instead.

    Args:
        in_channels: channels of the input.
        body_channels: channels of the convolutions' result; at stride 2 the unit's output has
            `in_channels` more.
        stride: of the depthwise convolution, 1 or 2.
        groups: of the 1×1 convolutions.
    """

    def __init__(self, in_channels: int, body_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        hidden = body_channels // 4
        # The stem has too few channels for groups (the paper, section 3.2).
        first_groups = 1 if in_channels == STEM_WIDTH else groups
        self.body = nn.Sequential(
            *conv_bn(in_channels, hidden, 1, groups=first_groups),
            nn.ReLU(),
            Shuffle(first_groups),
            *conv_bn(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(),
            *conv_bn(hidden, body_channels, 1, groups=groups),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(body + x), or relu(body ‖ pooled x) at stride 2."""
        body = self.body(x)
        joined = body + x if self.pool is None else torch.cat([body, self.pool(x)], 1)
        activated: Tensor = self.relu(joined)
        return activated


class SplitUnit(nn.Module):
    """Unit of V2: half of the channels pass, the other half is convolved; then shuffle.

    Args:
        width: channels of the input and of the output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = _convolution_branch(width // 2, width // 2, stride=1)
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shuffled concatenation of both halves."""
        left, right = x.chunk(2, 1)
        shuffled: Tensor = self.shuffle(torch.cat([left, self.body(right)], 1))
        return shuffled


class DownUnit(nn.Module):
    """Unit of V2 at stride 2: two branches over all channels, concatenated and shuffled.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, half of them from each branch.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.left = nn.Sequential(
            *conv_bn(in_channels, in_channels, 3, stride=2, groups=in_channels),
            *conv_bn(in_channels, half, 1),
            nn.ReLU(),
        )
        self.right = _convolution_branch(in_channels, half, stride=2)
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shuffled concatenation of both branches."""
        shuffled: Tensor = self.shuffle(torch.cat([self.left(x), self.right(x)], 1))
        return shuffled


def shufflenet_v1(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ShuffleNet-V1 with three groups.

    >>> shufflenet_v1()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])

    Args:
        num_classes: number of logits.
        channels: channels of the images.

    Raises:
        UserError: If an argument is below 1.
    """
    check_channels(channels)
    in_channels = STEM_WIDTH
    stages: list[nn.Module] = []
    for out_channels, num_units in V1_STAGES:
        # The first unit appends its pooled input, so its body gives the remaining channels.
        units = [GroupUnit(in_channels, out_channels - in_channels, stride=2, groups=V1_GROUPS)]
        for _ in range(num_units - 1):
            units.append(GroupUnit(out_channels, out_channels, stride=1, groups=V1_GROUPS))
        stages.append(nn.Sequential(*units))
        in_channels = out_channels
    return staged_net(_stem(channels), stages, width=in_channels, num_classes=num_classes)


def shufflenet_v2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ShuffleNet-V2 at size 1.

    >>> shufflenet_v2()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])

    Args:
        num_classes: number of logits.
        channels: channels of the images.

    Raises:
        UserError: If an argument is below 1.
    """
    check_channels(channels)
    in_channels = STEM_WIDTH
    stages: list[nn.Module] = []
    for out_channels, num_units in V2_STAGES:
        units: list[nn.Module] = [DownUnit(in_channels, out_channels)]
        for _ in range(num_units - 1):
            units.append(SplitUnit(out_channels))
        stages.append(nn.Sequential(*units))
        in_channels = out_channels
    last = nn.Sequential(*conv_bn(in_channels, V2_LAST_WIDTH, 1), nn.ReLU())
    return staged_net(
        _stem(channels),
        stages,
        width=V2_LAST_WIDTH,
        num_classes=num_classes,
        last=last,
    )


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(channels, STEM_WIDTH, 1), nn.ReLU())


def _convolution_branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return the branch of V2's units: 1×1, depthwise 3×3, 1×1."""
    return nn.Sequential(
        *conv_bn(in_channels, out_channels, 1),
        nn.ReLU(),
        *conv_bn(out_channels, out_channels, 3, stride=stride, groups=out_channels),
        *conv_bn(out_channels, out_channels, 1),
        nn.ReLU(),
    )

"""ShuffleNets for 32×32 images: V1, X. Zhang et al., CVPR 2018, 1707.01083; V2, N. Ma et al., ECCV 2018, 1807.11164.

The forms of the distillation papers (HobbitLong/RepDistiller): a 1×1 stem at full resolution; V1 with three groups,
V2 at size 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutelage.models.blocks import Shuffle, StagedNet, check_channels, conv_bn, staged

STEM = 24


class GroupUnit(nn.Module):
    """Unit of V1: grouped 1×1, shuffle, depthwise 3×3, grouped 1×1; at stride 2 the pooled input is appended."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        hidden, first = outputs // 4, 1 if inputs == STEM else groups
        self.body = nn.Sequential(
            *conv_bn(inputs, hidden, 1, groups=first),
            nn.ReLU(),
            Shuffle(first),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU(),
            *conv_bn(hidden, outputs, 1, groups=groups),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(body + x), or relu(body ‖ pooled x) at stride 2."""
        body = self.body(x)
        out: Tensor = self.relu(body + x if self.pool is None else torch.cat([body, self.pool(x)], 1))
        return out


class SplitUnit(nn.Module):
    """ShuffleNet-V2 unit: half of the channels pass, the other half goes 1×1, depthwise 3×3, 1×1; then shuffle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = _branch(width // 2, width // 2, stride=1)
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shuffled concatenation of both halves."""
        left, right = x.chunk(2, 1)
        out: Tensor = self.shuffle(torch.cat([left, self.body(right)], 1))
        return out


class DownUnit(nn.Module):
    """ShuffleNet-V2 unit at stride 2: two branches over all channels, concatenated and shuffled."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(*conv_bn(inputs, inputs, 3, 2, groups=inputs), *conv_bn(inputs, half, 1), nn.ReLU())
        self.right = _branch(inputs, half, stride=2)
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shuffled concatenation of both branches."""
        out: Tensor = self.shuffle(torch.cat([self.left(x), self.right(x)], 1))
        return out


def shufflenet_v1(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ShuffleNet-V1 with three groups."""
    check_channels(channels)
    inputs, parts = STEM, []
    for outputs, blocks in ((240, 4), (480, 8), (960, 4)):
        rows = [GroupUnit(inputs, outputs - inputs, 2, 3)]
        rows += [GroupUnit(outputs, outputs, 1, 3) for _ in range(blocks - 1)]
        parts.append(nn.Sequential(*rows))
        inputs = outputs
    return staged(nn.Sequential(*conv_bn(channels, STEM, 1), nn.ReLU()), [*parts], inputs, num_classes)


def shufflenet_v2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ShuffleNet-V2 at size 1."""
    check_channels(channels)
    inputs, parts = STEM, []
    for outputs, blocks in ((116, 3), (232, 7), (464, 3)):
        units: list[nn.Module] = [DownUnit(inputs, outputs), *(SplitUnit(outputs) for _ in range(blocks))]
        parts.append(nn.Sequential(*units))
        inputs = outputs
    last = nn.Sequential(*conv_bn(inputs, 1024, 1), nn.ReLU())
    return staged(nn.Sequential(*conv_bn(channels, STEM, 1), nn.ReLU()), [*parts], 1024, num_classes, last)


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_bn(inputs, outputs, 1),
        nn.ReLU(),
        *conv_bn(outputs, outputs, 3, stride, groups=outputs),
        *conv_bn(outputs, outputs, 1),
        nn.ReLU(),
    )

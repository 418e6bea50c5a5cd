"""MobileNet-V2 at half width for 32×32 images: M. Sandler et al., CVPR 2018, arXiv 1801.04381.

The form of the distillation papers (HobbitLong/RepDistiller, `mobile_half`): expansion 6, width 0.5, the second
stage at stride 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.models.blocks import StagedNet, check_channels, conv_bn, staged

EXPANSION = 6
# (expansion, channels at full width, blocks, stride) of the bottlenecks, grouped into stages of one resolution
STAGES = (
    ((1, 16, 1, 1), (EXPANSION, 24, 2, 1)),
    ((EXPANSION, 32, 3, 2),),
    ((EXPANSION, 64, 4, 2), (EXPANSION, 96, 3, 1)),
    ((EXPANSION, 160, 3, 2), (EXPANSION, 320, 1, 1)),
)


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise 3×3, project 1×1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            *conv_bn(inputs, hidden, 1),
            nn.ReLU(),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden),
            nn.ReLU(),
            *conv_bn(hidden, outputs, 1),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the projection, added to the input where the shape stays."""
        out: Tensor = self.body(x)
        return x + out if self.same else out


def mobilenet_v2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return MobileNet-V2 at half width.

    >>> import torch
    >>> mobilenet_v2()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])
    """
    check_channels(channels)
    inputs = 16
    parts: list[nn.Module] = []
    for stage in STAGES:
        rows: list[nn.Module] = []
        for expansion, width, blocks, stride in stage:
            for index in range(blocks):
                rows.append(InvertedResidual(inputs, width // 2, expansion, stride if index == 0 else 1))
                inputs = width // 2
        parts.append(nn.Sequential(*rows))
    stem = nn.Sequential(*conv_bn(channels, 16, 3, 2), nn.ReLU())
    last = nn.Sequential(*conv_bn(inputs, 1280, 1), nn.ReLU())
    return staged(stem, parts, 1280, num_classes, last)

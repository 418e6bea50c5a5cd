"""MobileNet-V2 at half width for 32×32 images: M. Sandler et al., CVPR 2018, arXiv 1801.04381.

The variant of the distillation papers (HobbitLong/RepDistiller, `mobile_half`): expansion 6, width
0.5, the second stage at stride 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.models.blocks import StagedNet, check_channels, conv_bn, staged_net

EXPANSION = 6
STEM_WIDTH = 16
LAST_WIDTH = 1280
# (expansion, channels at full width, blocks, stride) of the bottlenecks, grouped into stages of one
# resolution
STAGES = (
    ((1, 16, 1, 1), (EXPANSION, 24, 2, 1)),
    ((EXPANSION, 32, 3, 2),),
    ((EXPANSION, 64, 4, 2), (EXPANSION, 96, 3, 1)),
    ((EXPANSION, 160, 3, 2), (EXPANSION, 320, 1, 1)),
)


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise 3×3, project 1×1; a shortcut where the shape does not change.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        expansion: channels of the depthwise convolution per channel of the input.
        stride: of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.body = nn.Sequential(
            *conv_bn(in_channels, hidden, 1),
            nn.ReLU(),
            *conv_bn(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(),
            *conv_bn(hidden, out_channels, 1),
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the projection, added to the input where the shape does not change."""
        projection: Tensor = self.body(x)
        return x + projection if self.has_shortcut else projection


def mobilenet_v2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return MobileNet-V2 at half width.

    >>> import torch
    >>> mobilenet_v2()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])

    Args:
        num_classes: number of logits.
        channels: channels of the images.

    Raises:
        UserError: If an argument is below 1.
    """
    check_channels(channels)
    in_channels = STEM_WIDTH
    stages: list[nn.Module] = []
    for groups in STAGES:
        blocks: list[nn.Module] = []
        for expansion, full_width, num_blocks, first_stride in groups:
            out_channels = full_width // 2
            for index in range(num_blocks):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(in_channels, out_channels, expansion, stride))
                in_channels = out_channels
        stages.append(nn.Sequential(*blocks))
    stem = nn.Sequential(*conv_bn(channels, STEM_WIDTH, 3, stride=2), nn.ReLU())
    last = nn.Sequential(*conv_bn(in_channels, LAST_WIDTH, 1), nn.ReLU())
    return staged_net(stem, stages, width=LAST_WIDTH, num_classes=num_classes, last=last)

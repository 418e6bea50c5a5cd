"""Wide residual networks: S. Zagoruyko, N. Komodakis, BMVC 2016, arXiv 1605.07146.

Depth 6n + 4, without dropout.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.blocks import StagedNet, check_channels, staged_net

STEM_WIDTH = 16
STAGE_WIDTHS = (16, 32, 64)
"""Channels of the stages before they are widened."""


class PreActivationBlock(nn.Module):
    """Norm and activation before each of two 3×3 convolutions.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; where they differ, the shortcut is a 1×1 convolution.
        stride: of the first convolution and of the shortcut; 1 where the width does not change.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.keeps_width = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity()
        if not self.keeps_width:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return body + shortcut; a convolution on the shortcut reads the activated input."""
        activated = self.activate(x)
        shortcut = self.shortcut(x if self.keeps_width else activated)
        out: Tensor = self.body(activated) + shortcut
        return out


def wide_resnet(depth: int, widen: int, num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return WRN-depth-widen.

    >>> import torch
    >>> wide_resnet(10, 1)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])

    Args:
        depth: number of layers with weights, 6n + 4 for n blocks per stage.
        widen: factor of the stages' channels 16, 32 and 64.
        num_classes: number of logits.
        channels: channels of the images.

    Raises:
        UserError: If the depth is not 6n + 4, or another argument is below 1.
    """
    check_channels(channels)
    if depth < 10 or (depth - 4) % 6 or widen < 1:
        raise UserError(
            "a wide ResNet has depth 6n + 4 (10, 16, …) and widen of at least 1, "
            f"got {depth} and {widen}"
        )
    num_blocks = (depth - 4) // 6
    in_channels = STEM_WIDTH
    stages: list[nn.Module] = []
    for stage_width in STAGE_WIDTHS:
        out_channels = stage_width * widen
        # The first stage keeps the resolution; each later stage halves it in its first block.
        first_stride = 2 if stages else 1
        blocks = [PreActivationBlock(in_channels, out_channels, first_stride)]
        for _ in range(num_blocks - 1):
            blocks.append(PreActivationBlock(out_channels, out_channels, stride=1))
        stages.append(nn.Sequential(*blocks))
        in_channels = out_channels
    stem = nn.Conv2d(channels, STEM_WIDTH, 3, padding=1, bias=False)
    # The blocks end without norm and activation, so these follow the last one.
    last = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
    return staged_net(stem, stages, width=in_channels, num_classes=num_classes, last=last)


def wrn_16_1(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return WRN-16-1; see `wide_resnet` for the arguments."""
    return wide_resnet(16, 1, num_classes, channels)


def wrn_16_2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return WRN-16-2; see `wide_resnet` for the arguments."""
    return wide_resnet(16, 2, num_classes, channels)


def wrn_40_1(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return WRN-40-1; see `wide_resnet` for the arguments."""
    return wide_resnet(40, 1, num_classes, channels)


def wrn_40_2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return WRN-40-2; see `wide_resnet` for the arguments."""
    return wide_resnet(40, 2, num_classes, channels)

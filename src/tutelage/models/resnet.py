"""ResNets for 32×32 images: K. He et al., CVPR 2016, arXiv 1512.03385, section 4.2.

Depth 6n + 2: three stages of n basic blocks. The ×4 variants of the distillation papers have a stem
of 32 channels and stages of 64, 128 and 256 (Y. Tian et al., Contrastive Representation
Distillation, ICLR 2020; HobbitLong/RepDistiller).
"""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.blocks import StagedNet, check_channels, conv_bn, staged_net

# Channels of the stem and of the three stages
NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution where the shape changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(in_channels, out_channels, 3, stride=stride),
            nn.ReLU(),
            *conv_bn(out_channels, out_channels, 3),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride=stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(body + shortcut)."""
        activated: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return activated


def cifar_resnet(
    depth: int,
    widths: tuple[int, int, int, int],
    num_classes: int = 100,
    channels: int = 3,
) -> StagedNet:
    """Return a ResNet of depth 6n + 2.

    >>> import torch
    >>> cifar_resnet(8, (16, 16, 32, 64))(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])

    Args:
        depth: number of layers with weights, 6n + 2 for n blocks per stage.
        widths: channels of the stem and of the three stages.
        num_classes: number of logits.
        channels: channels of the images.

    Raises:
        UserError: If the depth is not 6n + 2, or `num_classes` or `channels` is below 1.
    """
    check_channels(channels)
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"a CIFAR ResNet has depth 6n + 2 (8, 14, 20, …), got {depth}")
    num_blocks = (depth - 2) // 6
    stem_width, *stage_widths = widths
    in_channels = stem_width
    stages: list[nn.Module] = []
    for out_channels in stage_widths:
        # The first stage keeps the resolution; each later stage halves it in its first block.
        first_stride = 2 if stages else 1
        blocks = [BasicBlock(in_channels, out_channels, first_stride)]
        for _ in range(num_blocks - 1):
            blocks.append(BasicBlock(out_channels, out_channels, stride=1))
        stages.append(nn.Sequential(*blocks))
        in_channels = out_channels
    stem = nn.Sequential(*conv_bn(channels, stem_width, 3), nn.ReLU())
    return staged_net(stem, stages, width=in_channels, num_classes=num_classes)


def resnet8(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-8; see `cifar_resnet` for the arguments."""
    return cifar_resnet(8, NARROW, num_classes, channels)


def resnet14(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-14; see `cifar_resnet` for the arguments."""
    return cifar_resnet(14, NARROW, num_classes, channels)


def resnet20(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-20; see `cifar_resnet` for the arguments."""
    return cifar_resnet(20, NARROW, num_classes, channels)


def resnet32(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-32; see `cifar_resnet` for the arguments."""
    return cifar_resnet(32, NARROW, num_classes, channels)


def resnet44(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-44; see `cifar_resnet` for the arguments."""
    return cifar_resnet(44, NARROW, num_classes, channels)


def resnet56(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-56; see `cifar_resnet` for the arguments."""
    return cifar_resnet(56, NARROW, num_classes, channels)


def resnet110(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-110; see `cifar_resnet` for the arguments."""
    return cifar_resnet(110, NARROW, num_classes, channels)


def resnet8x4(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-8×4; see `cifar_resnet` for the arguments."""
    return cifar_resnet(8, WIDE, num_classes, channels)


def resnet32x4(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return ResNet-32×4; see `cifar_resnet` for the arguments."""
    return cifar_resnet(32, WIDE, num_classes, channels)

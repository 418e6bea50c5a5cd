"""ResNets for 32×32 images: K. He et al., CVPR 2016, arXiv 1512.03385, section 4.2.

Depth 6n + 2: three stages of n basic blocks. The ×4 forms of the distillation papers have a stem of 32 and stages
of 64, 128, 256 channels (Y. Tian et al., Contrastive Representation Distillation, ICLR 2020;
HobbitLong/RepDistiller).
"""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.blocks import StagedNet, check_channels, conv_bn, staged


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; a 1×1 convolution on the shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *conv_bn(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(body + shortcut)."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def cifar_resnet(depth: int, widths: tuple[int, int, int, int], num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return a ResNet of depth 6n + 2 with these channels in stem and stages.

    >>> import torch
    >>> cifar_resnet(8, (16, 16, 32, 64))(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])
    """
    check_channels(channels)
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"a CIFAR ResNet has depth 6n + 2 (8, 14, 20, …), got {depth}")
    blocks, (stem, *stages) = (depth - 2) // 6, widths
    parts: list[nn.Module] = []
    inputs = stem
    for number, outputs in enumerate(stages):
        strides = [1 if number == 0 else 2] + [1] * (blocks - 1)
        rows = [BasicBlock(inputs if i == 0 else outputs, outputs, stride) for i, stride in enumerate(strides)]
        parts.append(nn.Sequential(*rows))
        inputs = outputs
    return staged(nn.Sequential(*conv_bn(channels, stem, 3), nn.ReLU()), parts, inputs, num_classes)


NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)


def resnet8(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-8."""
    return cifar_resnet(8, NARROW, num_classes, channels)


def resnet14(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-14."""
    return cifar_resnet(14, NARROW, num_classes, channels)


def resnet20(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-20."""
    return cifar_resnet(20, NARROW, num_classes, channels)


def resnet32(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-32."""
    return cifar_resnet(32, NARROW, num_classes, channels)


def resnet44(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-44."""
    return cifar_resnet(44, NARROW, num_classes, channels)


def resnet56(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-56."""
    return cifar_resnet(56, NARROW, num_classes, channels)


def resnet110(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-110."""
    return cifar_resnet(110, NARROW, num_classes, channels)


def resnet8x4(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-8×4."""
    return cifar_resnet(8, WIDE, num_classes, channels)


def resnet32x4(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """ResNet-32×4."""
    return cifar_resnet(32, WIDE, num_classes, channels)

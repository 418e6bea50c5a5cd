"""Wide residual networks: S. Zagoruyko, N. Komodakis, BMVC 2016, arXiv 1605.07146; depth 6n + 4, without dropout."""

from __future__ import annotations

from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.blocks import StagedNet, check_channels, staged


class PreActivationBlock(nn.Module):
    """Norm and activation before each of two 3×3 convolutions; a 1×1 shortcut where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.same = inputs == outputs
        self.shortcut = nn.Identity() if self.same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return body + shortcut; a shortcut with a convolution starts from the activated input."""
        active = self.activate(x)
        out: Tensor = self.body(active) + self.shortcut(x if self.same else active)
        return out


def wide_resnet(depth: int, widen: int, num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return WRN-depth-widen.

    >>> import torch
    >>> wide_resnet(10, 1)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])
    """
    check_channels(channels)
    if depth < 10 or (depth - 4) % 6 or widen < 1:
        raise UserError(f"a wide ResNet has depth 6n + 4 (10, 16, …) and widen of at least 1, got {depth} and {widen}")
    blocks, inputs = (depth - 4) // 6, 16
    parts: list[nn.Module] = []
    for outputs, stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
        rows = [
            PreActivationBlock(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range(blocks)
        ]
        parts.append(nn.Sequential(*rows))
        inputs = outputs
    stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    return staged(stem, parts, inputs, num_classes, last=nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()))


def wrn_16_1(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """WRN-16-1."""
    return wide_resnet(16, 1, num_classes, channels)


def wrn_16_2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """WRN-16-2."""
    return wide_resnet(16, 2, num_classes, channels)


def wrn_40_1(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """WRN-40-1."""
    return wide_resnet(40, 1, num_classes, channels)


def wrn_40_2(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """WRN-40-2."""
    return wide_resnet(40, 2, num_classes, channels)

"""The stacked hourglass (A. Newell, K. Yang, J. Deng, ECCV 2016, arXiv 1603.06937).

As in the official code of OKDHP, whose residual blocks are pre-activated bottlenecks with biases.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.errors import UserError
from tutelage.models.blocks import check_counts
from tutelage.models.pose_network import PoseNetwork


class Bottleneck(nn.Module):
    """BN-ReLU-1×1, BN-ReLU-3×3, BN-ReLU-1×1 and a skip connection.

    Args:
        in_channels: of the input.
        planes: p; the output has 2p channels.
    """

    def __init__(self, in_channels: int, planes: int) -> None:
        super().__init__()
        out_channels = 2 * planes
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, planes, 1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1)
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same size."""
        inner: Tensor = self.conv1(F.relu(self.bn1(x)))
        inner = self.conv2(F.relu(self.bn2(inner)))
        inner = self.conv3(F.relu(self.bn3(inner)))
        return inner + cast("Tensor", self.skip(x))


class Hourglass(nn.Module):
    """Down by 2 at each level and up again, with a residual on the upper path.

    Args:
        depth: number of levels.
        width: channels.
    """

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.depth = depth
        self.upper = nn.ModuleList(Bottleneck(width, width // 2) for _ in range(depth))
        self.down = nn.ModuleList(Bottleneck(width, width // 2) for _ in range(depth))
        self.innermost = Bottleneck(width, width // 2)
        self.up = nn.ModuleList(Bottleneck(width, width // 2) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same size.

        Raises:
            UserError: If a side cannot be halved that often.
        """
        for name, side in (("height", x.shape[-2]), ("width", x.shape[-1])):
            if side % 2**self.depth:
                raise UserError(
                    f"{name} {side} of the maps is not divisible by {2**self.depth} for depth "
                    f"{self.depth} of the hourglass; take images of another size, or a lower depth"
                )
        return self._level(x, 0)

    def _level(self, x: Tensor, level: int) -> Tensor:
        low = self.down[level](F.max_pool2d(x, 2))
        low = self.innermost(low) if level == self.depth - 1 else self._level(low, level + 1)
        low = self.up[level](low)
        upper: Tensor = self.upper[level](x)
        return upper + F.interpolate(low, scale_factor=2.0, mode="nearest")


class HourglassStack(nn.Module):
    """Hourglass → residual → 1×1 convolution, BN, ReLU → score; and what the next stack gets.

    Args:
        width: channels.
        num_joints: K.
        depth: of the hourglass.
        is_last: nothing is made for a next stack.
    """

    def __init__(self, width: int, num_joints: int, depth: int, is_last: bool) -> None:
        super().__init__()
        self.hourglass = Hourglass(depth, width)
        self.residual = Bottleneck(width, width // 2)
        self.fc = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.score = nn.Conv2d(width, num_joints, 1)
        self.remap_features = None if is_last else nn.Conv2d(width, width, 1)
        self.remap_score = None if is_last else nn.Conv2d(num_joints, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features for the next stack, and maps."""
        features = self.fc(self.residual(self.hourglass(x)))
        score: Tensor = self.score(features)
        if self.remap_features is None or self.remap_score is None:
            return features, score
        return x + self.remap_features(features) + self.remap_score(score), score


class HourglassStacks:
    """Makes stacks; a class, so that networks can be pickled.

    Args:
        width: as `HourglassStack`.
        num_joints: as `HourglassStack`.
        depth: as `HourglassStack`.
    """

    def __init__(self, width: int, num_joints: int, depth: int) -> None:
        self.width = width
        self.num_joints = num_joints
        self.depth = depth

    def __call__(self, count: int) -> list[nn.Module]:
        """Return a path of new stacks."""
        return [
            HourglassStack(self.width, self.num_joints, self.depth, is_last=index == count - 1)
            for index in range(count)
        ]


def stacked_hourglass(
    num_joints: int = 16,
    stacks: int = 4,
    *,
    width: int = 256,
    depth: int = 4,
    channels: int = 3,
) -> PoseNetwork:
    """Return a stacked hourglass, whose maps have a stride of 4.

    >>> import torch
    >>> network = stacked_hourglass(num_joints=3, stacks=2, width=16, depth=2)
    >>> network(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 2, 3, 8, 8])

    Args:
        num_joints: K.
        stacks: how many hourglasses follow each other.
        width: channels, a multiple of 4; 256 in the paper.
        depth: levels of an hourglass; the sides of the maps are divisible by 2^depth.
        channels: of the images.

    Raises:
        UserError: If an argument is out of range.
    """
    counts = {"num_joints": num_joints, "stacks": stacks, "depth": depth, "channels": channels}
    check_counts("stacked_hourglass", counts)
    if width < 4 or width % 4:
        raise UserError(f"stacked_hourglass has a width that is a multiple of 4, got {width}")
    quarter, half = width // 4, width // 2
    stem = nn.Sequential(
        nn.Conv2d(channels, quarter, 7, stride=2, padding=3),
        nn.BatchNorm2d(quarter),
        nn.ReLU(),
        Bottleneck(quarter, quarter),
        nn.MaxPool2d(2),
        Bottleneck(half, half),
        Bottleneck(width, half),
    )
    factory = HourglassStacks(width, num_joints, depth)
    return PoseNetwork(
        stem, factory(stacks), width=width, num_joints=num_joints, make_stages=factory
    )

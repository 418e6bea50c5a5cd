"""A network for poses as a stem and a path of stages, so that its end can be multiplied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import UserError
from tutelage.models.blocks import check_counts, conv_bn

MakeStages = Callable[[int], Sequence[nn.Module]]


class PoseNetwork(nn.Module):
    """A stem, and stages of which each gives heat maps.

    The output is (N, S, K, h, w), the maps of all S stages; the last ones are the prediction.

    >>> network = small_pose(num_joints=5, width=8)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1, 5, 8, 8])

    Args:
        stem: images → features.
        stages: each takes features and returns (features for the next stage, maps (N, K, h, w)).
        width: channels of the stem's features.
        num_joints: K.
        make_stages: returns that many new stages, which end a path; for branches.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        *,
        width: int,
        num_joints: int,
        make_stages: MakeStages,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.width = width
        self.num_joints = num_joints
        self.make_stages = make_stages

    def forward(self, images: Tensor) -> Tensor:
        """Return the maps of all stages."""
        return torch.stack(run_stages(self.stages, self.stem(images))[1], 1)


def run_stages(stages: Iterable[nn.Module], features: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a path of stages.

    Returns:
        The features after the last stage, and the maps of each.
    """
    maps = []
    for stage in stages:
        features, heatmaps = stage(features)
        maps.append(heatmaps)
    return features, maps


class ConvStage(nn.Module):
    """Convolutions of 3×3 and a 1×1 convolution that gives the maps; every stage starts anew.

    Args:
        width: channels of the features.
        num_joints: K.
        convs: convolutions before the maps.
        is_last: no features are made for a next stage.
    """

    def __init__(self, width: int, num_joints: int, convs: int, is_last: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convs):
            layers += [*conv_bn(width, width, 3), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, num_joints, 1)
        self.remap = None if is_last else nn.Conv2d(num_joints, width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features for the next stage, and maps."""
        decoded = self.body(features)
        maps: Tensor = self.head(decoded)
        if self.remap is None:
            return decoded, maps
        return features + decoded + self.remap(maps), maps


def small_pose(
    num_joints: int,
    channels: int = 3,
    width: int = 24,
    *,
    stride: int = 4,
    stem_convs: int = 2,
    convs: int = 3,
    stages: int = 1,
) -> PoseNetwork:
    """Return a small convolutional network for poses, which trains in minutes on a CPU.

    >>> sum(parameter.numel() for parameter in small_pose(17).parameters())
    29573

    Args:
        num_joints: K.
        channels: of the images.
        width: channels of the features.
        stride: of the maps, 2 or 4.
        stem_convs: convolutions of the stem after those that reduce the size.
        convs: convolutions of a stage.
        stages: how many stages there are.

    Raises:
        UserError: If an argument is out of range.
    """
    counts = {
        "num_joints": num_joints,
        "channels": channels,
        "width": width // 2,
        "convs": convs,
        "stages": stages,
    }
    check_counts("small_pose", counts)
    if stride not in (2, 4):
        raise UserError(f"small_pose has a stride of 2 or 4, got {stride}")
    first = width // 2 if stride == 4 else width
    layers = [*conv_bn(channels, first, 3, stride=2), nn.ReLU()]
    if stride == 4:
        layers += [*conv_bn(first, width, 3, stride=2), nn.ReLU()]
    for _ in range(stem_convs):
        layers += [*conv_bn(width, width, 3), nn.ReLU()]
    factory = ConvStages(width, num_joints, convs)
    return PoseNetwork(
        nn.Sequential(*layers),
        factory(stages),
        width=width,
        num_joints=num_joints,
        make_stages=factory,
    )


class ConvStages:
    """Makes the stages of `small_pose`; a class, so that networks can be pickled.

    Args:
        width: as `ConvStage`.
        num_joints: as `ConvStage`.
        convs: as `ConvStage`.
    """

    def __init__(self, width: int, num_joints: int, convs: int) -> None:
        self.width = width
        self.num_joints = num_joints
        self.convs = convs

    def __call__(self, count: int) -> list[nn.Module]:
        """Return a path of new stages."""
        return [
            ConvStage(self.width, self.num_joints, self.convs, is_last=index == count - 1)
            for index in range(count)
        ]

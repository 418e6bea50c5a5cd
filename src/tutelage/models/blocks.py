"""Parts that the networks share: named stages, convolution with batch norm, channel shuffle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tutelage.errors import UserError


class StagedNet(nn.Sequential):
    """A classifier as a sequence of named parts.

    The parts are `stem`, `stage1`, `stage2`, …, `pool`, `flatten` and `classifier`; some networks
    have a part `last` before the pooling. Every part can be tapped by its name. No activation works
    in place, so recorded features are not overwritten.

    >>> from tutelage.models import resnet8
    >>> [name for name, _ in resnet8().named_children()]
    ['stem', 'stage1', 'stage2', 'stage3', 'pool', 'flatten', 'classifier']
    """


def staged_net(
    stem: nn.Module,
    stages: Sequence[nn.Module],
    *,
    width: int,
    num_classes: int,
    last: nn.Module | None = None,
) -> StagedNet:
    """Return a network of these parts with a new classifier and He's initial weights.

    Args:
        stem: the first part.
        stages: the parts `stage1`, `stage2`, ….
        width: channels of the classifier's input.
        num_classes: number of logits.
        last: a part between the last stage and the pooling.

    Raises:
        UserError: If `num_classes` is below 1.
    """
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for number, stage in enumerate(stages, start=1):
        parts[f"stage{number}"] = stage
    if last is not None:
        parts["last"] = last
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["classifier"] = nn.Linear(width, num_classes)
    network = StagedNet(parts)
    network.apply(_init_convolution)
    return network


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    groups: int = 1,
) -> list[nn.Module]:
    """Return a convolution without bias, padded to keep the size at stride 1, and its batch norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, an odd number.
        stride: of the convolution.
        groups: of the convolution.
    """
    convolution = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        groups=groups,
        bias=False,
    )
    return [convolution, nn.BatchNorm2d(out_channels)]


class Shuffle(nn.Module):
    """Interleave the channels of g groups: (N, g·c, H, W) as (N, c·g, H, W).

    >>> import torch
    >>> x = torch.arange(6).view(1, 6, 1, 1)
    >>> Shuffle(groups=2)(x).flatten().tolist()
    [0, 3, 1, 4, 2, 5]

    Args:
        groups: number of groups, a divisor of the channels.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its channels interleaved."""
        n, channels, height, width = x.shape
        grouped = x.view(n, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(n, channels, height, width)


def check_counts(network: str, counts: Mapping[str, int]) -> None:
    """Raise for a number of classes, channels, … below 1.

    Args:
        network: name of the network for the message.
        counts: the numbers by the names of their arguments.

    Raises:
        UserError: If a number is below 1.
    """
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{network} needs {name} of at least 1, got {value}")


def check_channels(channels: int) -> None:
    """Raise for a number of image channels below 1.

    Args:
        channels: channels of the images.

    Raises:
        UserError: If it is below 1.
    """
    if channels < 1:
        raise UserError(f"channels must be at least 1, got {channels}")


def _init_convolution(module: nn.Module) -> None:
    """Initialize a convolution as K. He et al. (ICCV 2015) do; leave other modules as they are."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""What the CIFAR networks share: named stages in a row, convolution with batch norm, shuffle, initial weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from tutelage.errors import UserError


class StagedNet(nn.Sequential):
    """A network as a row of named parts: `stem`, `stage1`, `stage2`, …, `pool`, `flatten`, `classifier`.

    Every part can be tapped by its name; no activation works in place, so what a tap recorded stays as it was.
    """


def staged(
    stem: nn.Module, stages: list[nn.Module], width: int, num_classes: int, last: nn.Module | None = None
) -> StagedNet:
    """Return the network; `last` comes between the last stage and the pooling."""
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    named = {f"stage{number}": stage for number, stage in enumerate(stages, 1)}
    head: Mapping[str, nn.Module] = {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(width, num_classes),
    }
    between = {} if last is None else {"last": last}
    net = StagedNet(OrderedDict({"stem": stem, **named, **between, **head}))
    net.apply(_he_initial)
    return net


def check_counts(network: str, counts: Mapping[str, int]) -> None:
    """Refuse a number of classes, channels, … below 1.

    Raises:
        UserError: the message names the network and the argument.
    """
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{network} needs {name} of at least 1, got {value}")


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias, padded to keep the size at stride 1, and its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Shuffle(nn.Module):
    """Interleave the channels of g groups: (N, g·c, H, W) as (N, c·g, H, W)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its channels interleaved."""
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def check_channels(channels: int) -> None:
    """Refuse a number of image channels below 1."""
    if channels < 1:
        raise UserError(f"channels must be at least 1, got {channels}")


def _he_initial(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)

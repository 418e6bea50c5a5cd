"""Small convolutional networks for small images, which train in seconds to minutes on a CPU."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from tutelage.models.blocks import check_counts


class SmallCNN(nn.Sequential):
    """Three stages of 3×3 convolutions, global average pooling, and a linear classifier.

    The stages `stage1`, `stage2` and `stage3` have w, 2w and 4w channels at full, half and quarter
    resolution.
    """


def small_cnn(
    num_classes: int = 10,
    channels: int = 1,
    width: int = 10,
    convs: int = 1,
) -> SmallCNN:
    """Return a small convolutional network.

    >>> import torch
    >>> student = small_cnn()
    >>> student(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> sum(parameter.numel() for parameter in student.parameters())
    9640
    >>> teacher = small_cnn(width=22, convs=2)
    >>> sum(parameter.numel() for parameter in teacher.parameters())
    136740

    Args:
        num_classes: number of logits.
        channels: channels of the images.
        width: channels of the first stage.
        convs: convolutions per stage.

    Raises:
        UserError: If an argument is below 1.
    """
    check_counts(
        "small_cnn",
        {"num_classes": num_classes, "channels": channels, "width": width, "convs": convs},
    )
    return SmallCNN(
        OrderedDict(
            stage1=_stage(channels, width, convs, first_stride=1),
            stage2=_stage(width, 2 * width, convs, first_stride=2),
            stage3=_stage(2 * width, 4 * width, convs, first_stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(4 * width, num_classes),
        )
    )


def _stage(in_channels: int, out_channels: int, convs: int, first_stride: int) -> nn.Sequential:
    """Return `convs` convolutions with batch norm and ReLU; only the first changes the shape."""
    layers: list[nn.Module] = []
    for index in range(convs):
        convolution = nn.Conv2d(
            in_channels if index == 0 else out_channels,
            out_channels,
            kernel_size=3,
            stride=first_stride if index == 0 else 1,
            padding=1,
            bias=False,
        )
        layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)

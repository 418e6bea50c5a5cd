"""Small convolutional networks for small images: students and teachers that train in seconds to minutes on a CPU."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from tutelage.models.blocks import check_counts


class SmallCNN(nn.Sequential):
    """Three stages of 3×3 convolutions, global average pooling, a linear classifier.

    The stages are `stage1`, `stage2`, `stage3`: of width w, 2w and 4w, at full, half and quarter resolution.
    """


def small_cnn(num_classes: int = 10, channels: int = 1, width: int = 10, convs: int = 1) -> SmallCNN:
    """Return a small convolutional network.

    >>> import torch
    >>> small_cnn()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> [sum(p.numel() for p in small_cnn(width=w, convs=c).parameters()) for w, c in ((10, 1), (22, 2))]
    [9640, 136740]

    Args:
        num_classes: number of logits.
        channels: of the images.
        width: channels of the first stage.
        convs: convolutions per stage.

    Raises:
        UserError: an argument is smaller than 1.
    """
    check_counts("small_cnn", {"num_classes": num_classes, "channels": channels, "width": width, "convs": convs})
    return SmallCNN(
        OrderedDict(
            stage1=_stage(channels, width, convs, stride=1),
            stage2=_stage(width, 2 * width, convs, stride=2),
            stage3=_stage(2 * width, 4 * width, convs, stride=2),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=nn.Linear(4 * width, num_classes),
        )
    )


def _stage(inputs: int, outputs: int, convs: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convs):
        first = index == 0
        convolution = nn.Conv2d(
            inputs if first else outputs, outputs, 3, stride=stride if first else 1, padding=1, bias=False
        )
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)

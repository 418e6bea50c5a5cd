"""VGG with batch norm for 32×32 images: K. Simonyan, A. Zisserman, ICLR 2015, arXiv 1409.1556.

The variants of the distillation papers (HobbitLong/RepDistiller): one linear classifier, and VGG-8
with five convolutions.
"""

from __future__ import annotations

from torch import nn

from tutelage.models.blocks import StagedNet, check_channels, staged_net

WIDTHS = (64, 128, 256, 512, 512)
POOLED_STAGES = (2, 3, 4)
"""Numbers of the stages that begin with a max pooling by 2."""


def vgg8(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return VGG-8 with batch norm.

    >>> import torch
    >>> vgg8()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 100])

    Args:
        num_classes: number of logits.
        channels: channels of the images.

    Raises:
        UserError: If an argument is below 1.
    """
    return _vgg((1, 1, 1, 1, 1), num_classes, channels)


def vgg11(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return VGG-11 with batch norm; see `vgg8` for the arguments."""
    return _vgg((1, 1, 2, 2, 2), num_classes, channels)


def vgg13(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """Return VGG-13 with batch norm; see `vgg8` for the arguments."""
    return _vgg((2, 2, 2, 2, 2), num_classes, channels)


def _vgg(convs: tuple[int, int, int, int, int], num_classes: int, channels: int) -> StagedNet:
    """Return a VGG with so many convolutions in each of its five stages."""
    check_channels(channels)
    in_channels = channels
    stages: list[nn.Module] = []
    for number, (width, num_convs) in enumerate(zip(WIDTHS, convs, strict=True), start=1):
        layers: list[nn.Module] = []
        if number in POOLED_STAGES:
            layers.append(nn.MaxPool2d(2))
        for _ in range(num_convs):
            convolution = nn.Conv2d(in_channels, width, kernel_size=3, padding=1)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            in_channels = width
        stages.append(nn.Sequential(*layers))
    # The first stage reads the images themselves.
    return staged_net(nn.Identity(), stages, width=in_channels, num_classes=num_classes)

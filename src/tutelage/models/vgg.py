"""VGG with batch norm for 32×32 images: K. Simonyan, A. Zisserman, ICLR 2015, arXiv 1409.1556; one linear classifier.

VGG-8 is the five-convolution form of the distillation papers (HobbitLong/RepDistiller).
"""

from __future__ import annotations

from torch import nn

from tutelage.models.blocks import StagedNet, check_channels, staged

WIDTHS = (64, 128, 256, 512, 512)


def _vgg(convs: tuple[int, ...], num_classes: int, channels: int) -> StagedNet:
    """Return a VGG with so many convolutions in each of five stages; the first three end in a pooling by two."""
    check_channels(channels)
    inputs = channels
    parts: list[nn.Module] = []
    for number, (width, count) in enumerate(zip(WIDTHS, convs, strict=True)):
        layers: list[nn.Module] = [] if number in (0, 4) else [nn.MaxPool2d(2)]
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        parts.append(nn.Sequential(*layers))
    return staged(nn.Identity(), parts, inputs, num_classes)


def vgg8(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """VGG-8 with batch norm."""
    return _vgg((1, 1, 1, 1, 1), num_classes, channels)


def vgg11(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """VGG-11 with batch norm."""
    return _vgg((1, 1, 2, 2, 2), num_classes, channels)


def vgg13(num_classes: int = 100, channels: int = 3) -> StagedNet:
    """VGG-13 with batch norm."""
    return _vgg((2, 2, 2, 2, 2), num_classes, channels)

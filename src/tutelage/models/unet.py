"""A small U-Net: teachers and students for segmentation that train in minutes on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.models.blocks import check_counts

SLOPE = 0.1  # with 0, all of a few channels often fire on the background alone, and what is inside is lost for good


class UNet(nn.Module):
    """Three stages down, two up, a linear classifier of every pixel.

    The stages are `down1`, `down2`, `down3` of width w, 2w, 4w at full, half and quarter resolution, then `up2`, `up1`
    of width 2w and w at half and full resolution, and `classifier`; taps are addressed by these names. Images of any
    size are filled up to a multiple of 4 at the bottom and the right inside.
    """

    def __init__(self, num_classes: int, channels: int, width: int, convs: int) -> None:
        super().__init__()
        self.down1 = _stage(channels, width, convs, pool=False)
        self.down2 = _stage(width, 2 * width, convs, pool=True)
        self.down3 = _stage(2 * width, 4 * width, convs, pool=True)
        self.up2 = _stage(6 * width, 2 * width, convs, pool=False)
        self.up1 = _stage(3 * width, width, convs, pool=False)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W)."""
        height, width = images.shape[-2:]
        if height % 4 or width % 4:
            images = F.pad(images, (0, -width % 4, 0, -height % 4))
        one = self.down1(images)
        two = self.down2(one)
        three = self.down3(two)
        up = self.up2(torch.cat([_doubled(three), two], 1))
        up = self.up1(torch.cat([_doubled(up), one], 1))
        logits: Tensor = self.classifier(up)
        return logits[..., :height, :width]


def unet(num_classes: int, channels: int = 3, width: int = 12, convs: int = 2) -> UNet:
    """Return a small U-Net.

    >>> unet(3, width=4, convs=1)(torch.zeros(1, 3, 30, 41)).shape
    torch.Size([1, 3, 30, 41])
    >>> [sum(p.numel() for p in unet(3, width=w, convs=c).parameters()) for w, c in ((12, 2), (4, 1))]
    [66939, 3803]

    Args:
        num_classes: number of logits a pixel.
        channels: of the images.
        width: channels of the first stage.
        convs: convolutions per stage.

    Raises:
        UserError: an argument is smaller than 1.
    """
    check_counts("unet", {"num_classes": num_classes, "channels": channels, "width": width, "convs": convs})
    return UNet(num_classes, channels, width, convs)


def _stage(inputs: int, outputs: int, convs: int, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    for index in range(convs):
        convolution = nn.Conv2d(outputs if index else inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _doubled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)

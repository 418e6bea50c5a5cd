"""A small U-Net for segmentation (O. Ronneberger et al., MICCAI 2015, arXiv 1505.04597).

It trains in minutes on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutelage.models.blocks import check_counts

# With a slope of 0, all of a few channels often fire on the background alone, and what lies inside
# the objects is lost for good.
NEGATIVE_SLOPE = 0.1


class UNet(nn.Module):
    """Three stages down, two up, and a linear classifier for every pixel.

    The stages `down1`, `down2` and `down3` have w, 2w and 4w channels at full, half and quarter
    resolution; `up2` and `up1` have 2w and w channels at half and full resolution. They and the
    `classifier` can be tapped by these names. Images of any size are padded with zeros at the
    bottom and on the right to a multiple of 4; the logits are cropped to the image.

    Args:
        num_classes: number of logits per pixel.
        channels: channels of the images.
        width: w, the channels of the first stage.
        convs: convolutions per stage.
    """

    def __init__(self, num_classes: int, channels: int, width: int, convs: int) -> None:
        super().__init__()
        self.down1 = _stage(channels, width, convs, pool=False)
        self.down2 = _stage(width, 2 * width, convs, pool=True)
        self.down3 = _stage(2 * width, 4 * width, convs, pool=True)
        # A stage on the way up reads the coarser map and the map of its own resolution: 4w + 2w
        # channels, then 2w + w.
        self.up2 = _stage(6 * width, 2 * width, convs, pool=False)
        self.up1 = _stage(3 * width, width, convs, pool=False)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes, H, W)."""
        height, width = images.shape[-2:]
        if height % 4 or width % 4:
            images = F.pad(images, (0, -width % 4, 0, -height % 4))
        full = self.down1(images)
        half = self.down2(full)
        quarter = self.down3(half)
        decoded_half = self.up2(torch.cat([_upsample(quarter), half], 1))
        decoded_full = self.up1(torch.cat([_upsample(decoded_half), full], 1))
        logits: Tensor = self.classifier(decoded_full)
        return logits[..., :height, :width]


def unet(num_classes: int, channels: int = 3, width: int = 12, convs: int = 2) -> UNet:
    """Return a small U-Net.

    >>> teacher = unet(3)
    >>> sum(parameter.numel() for parameter in teacher.parameters())
    66939
    >>> student = unet(3, width=4, convs=1)
    >>> sum(parameter.numel() for parameter in student.parameters())
    3803
    >>> student(torch.zeros(1, 3, 30, 41)).shape
    torch.Size([1, 3, 30, 41])

    Args:
        num_classes: number of logits per pixel.
        channels: channels of the images.
        width: channels of the first stage.
        convs: convolutions per stage.

    Raises:
        UserError: If an argument is below 1.
    """
    check_counts(
        "unet",
        {"num_classes": num_classes, "channels": channels, "width": width, "convs": convs},
    )
    return UNet(num_classes, channels, width, convs)


def _stage(in_channels: int, out_channels: int, convs: int, pool: bool) -> nn.Sequential:
    """Return `convs` convolutions with batch norm and leaky ReLU, after a pooling by 2 if asked."""
    layers: list[nn.Module] = []
    if pool:
        layers.append(nn.MaxPool2d(2))
    for index in range(convs):
        convolution = nn.Conv2d(
            in_channels if index == 0 else out_channels,
            out_channels,
            kernel_size=3,
            padding=1,
            bias=False,
        )
        layers += [convolution, nn.BatchNorm2d(out_channels), nn.LeakyReLU(NEGATIVE_SLOPE)]
    return nn.Sequential(*layers)


def _upsample(maps: Tensor) -> Tensor:
    """Return maps of twice the height and width."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)

"""torchvision's detectors on any backbone, described by numbers that fit into a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from tutelage.errors import UserError

SIDES = (800,)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
FCOS_GROUPS = 32  # of the group norm in torchvision's FCOS heads


def fcos(
    backbone: nn.Module,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    longest: int = 1333,
    *,
    convs: int = 4,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
) -> nn.Module:
    """Return an FCOS detector (Z. Tian et al., ICCV 2019; arXiv 1904.01355).

    >>> from tutelage.models import fpn_backbone
    >>> backbone = fpn_backbone("resnet18", width=32, extra=None)
    >>> network = fcos(backbone, num_classes=2, sides=[96], convs=1, strides=[8, 16, 32])
    >>> type(network).__name__
    'FCOS'

    Args:
        backbone: gives a dict of maps, one per stride; see `fpn_backbone`.
        num_classes: number of classes, the background included.
        sides: lengths of an image's shorter side; in training one is drawn for each image, in
            evaluation it is the last.
        longest: upper limit of the longer side in pixels.
        convs: convolutions per head.
        strides: strides of the backbone's maps.

    Raises:
        UserError: If the backbone's width is not a multiple of 32.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS, FCOSHead

    width = cast("int", backbone.out_channels)
    if width % FCOS_GROUPS:
        raise UserError(
            f"FCOS normalizes its heads in {FCOS_GROUPS} groups, so the backbone's width must be a "
            f"multiple of {FCOS_GROUPS}, got {width}"
        )
    # FCOS has no anchor boxes: torchvision takes one square per position for the position itself.
    sizes = tuple((stride,) for stride in strides)
    aspect_ratios = ((1.0,),) * len(strides)
    network: nn.Module = FCOS(
        backbone,
        num_classes,
        min_size=tuple(sides),
        max_size=longest,
        anchor_generator=AnchorGenerator(sizes, aspect_ratios),
        head=FCOSHead(width, num_anchors=1, num_classes=num_classes, num_convs=convs),
    )
    return network


def retinanet(
    backbone: nn.Module,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    longest: int = 1333,
    *,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
) -> nn.Module:
    """Return a RetinaNet (T.-Y. Lin et al., ICCV 2017; arXiv 1708.02002).

    Every position has nine anchors: three sizes by three aspect ratios.

    Args:
        backbone: gives a dict of maps, one per stride; see `fpn_backbone`.
        num_classes: number of classes, the background included.
        sides: lengths of an image's shorter side; in training one is drawn for each image, in
            evaluation it is the last.
        longest: upper limit of the longer side in pixels.
        strides: strides of the backbone's maps.
    """
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    # Three sizes per octave, from four strides on; the next level takes the next octave.
    sizes = tuple(
        tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides
    )
    network: nn.Module = RetinaNet(
        backbone,
        num_classes,
        min_size=tuple(sides),
        max_size=longest,
        anchor_generator=AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(strides)),
    )
    return network


def faster_rcnn(
    backbone: nn.Module,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    longest: int = 1333,
    *,
    strides: Sequence[int] = (4, 8, 16, 32, 64),
    proposals: int = 512,
) -> nn.Module:
    """Return a Faster R-CNN with a feature pyramid (S. Ren et al., NeurIPS 2015; arXiv 1506.01497).

    Every position has three anchors: one size by three aspect ratios.

    Args:
        backbone: gives a dict of maps, one per stride; see `fpn_backbone`.
        num_classes: number of classes, the background included.
        sides: lengths of an image's shorter side; in training one is drawn for each image, in
            evaluation it is the last.
        longest: upper limit of the longer side in pixels.
        strides: strides of the backbone's maps.
        proposals: of an image, on which the box head trains; torchvision's and the paper's 512 take
            most of a small detector's time.
    """
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sizes = tuple((8 * stride,) for stride in strides)
    network: nn.Module = FasterRCNN(
        backbone,
        num_classes,
        min_size=tuple(sides),
        max_size=longest,
        rpn_anchor_generator=AnchorGenerator(sizes, (ASPECT_RATIOS,) * len(strides)),
        box_batch_size_per_image=proposals,
    )
    return network

"""torchvision's detectors on a backbone of one's choice, by numbers that fit into a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import nn

from tutelage.errors import UserError

SIDES = (800,)
GROUPS = 32


def fcos(
    backbone: nn.Module,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    longest: int = 1333,
    convs: int = 4,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
) -> nn.Module:
    """Return an FCOS detector (Z. Tian et al., ICCV 2019; arXiv 1904.01355).

    >>> from tutelage.models import fpn_backbone
    >>> network = fcos(fpn_backbone("resnet18", 32, extra=None), 2, sides=[96], convs=1, strides=[8, 16, 32])
    >>> type(network).__name__
    'FCOS'

    Args:
        backbone: gives a dict of maps, one a stride, see `fpn_backbone`.
        num_classes: with the background.
        sides: lengths of an image's shorter side; one is drawn for each image in training, the last is for evaluation.
        longest: most pixels of the longer side.
        convs: of each head.
        strides: of the backbone's maps.

    Raises:
        UserError: the width is no multiple of 32.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS, FCOSHead

    anchors = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    width = cast("int", backbone.out_channels)
    if width % GROUPS:
        raise UserError(f"FCOS normalises its heads in {GROUPS} groups, so that divides the width, which is {width}")
    head = FCOSHead(width, 1, num_classes, convs)
    network: nn.Module = FCOS(
        backbone, num_classes, min_size=tuple(sides), max_size=longest, anchor_generator=anchors, head=head
    )
    return network


def retinanet(
    backbone: nn.Module,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    longest: int = 1333,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
) -> nn.Module:
    """Return a RetinaNet (T.-Y. Lin et al., ICCV 2017; arXiv 1708.02002), nine anchors a position; see `fcos`."""
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(strides))
    network: nn.Module = RetinaNet(
        backbone, num_classes, min_size=tuple(sides), max_size=longest, anchor_generator=anchors
    )
    return network


def faster_rcnn(
    backbone: nn.Module,
    num_classes: int,
    sides: Sequence[int] = SIDES,
    longest: int = 1333,
    strides: Sequence[int] = (4, 8, 16, 32, 64),
) -> nn.Module:
    """Return a Faster R-CNN with a pyramid (S. Ren et al., NeurIPS 2015; arXiv 1506.01497); see `fcos`."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    anchors = AnchorGenerator(tuple((8 * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
    network: nn.Module = FasterRCNN(
        backbone, num_classes, min_size=tuple(sides), max_size=longest, rpn_anchor_generator=anchors
    )
    return network

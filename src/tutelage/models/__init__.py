"""Networks that the papers need and no library has.

Everything else comes from torchvision or timm by its class path. The classifiers are sequences of
named parts: `stem`, `stage1`, `stage2`, `stage3`, …, `pool`, `flatten`, `classifier`.
"""

from __future__ import annotations

from tutelage.models.blocks import StagedNet
from tutelage.models.deconv_pose import deconv_pose
from tutelage.models.detectors import faster_rcnn, fcos, retinanet
from tutelage.models.fpn import fpn_backbone
from tutelage.models.hourglass import stacked_hourglass
from tutelage.models.mobilenet import mobilenet_v2
from tutelage.models.pose_network import PoseNetwork, small_pose
from tutelage.models.recommendation import BPRMF, FactorTables, LightGCN, ScoreFunction
from tutelage.models.resnet import (
    cifar_resnet,
    resnet8,
    resnet8x4,
    resnet14,
    resnet20,
    resnet32,
    resnet32x4,
    resnet44,
    resnet56,
    resnet110,
)
from tutelage.models.shufflenet import shufflenet_v1, shufflenet_v2
from tutelage.models.small import small_cnn
from tutelage.models.text import (
    CrossEncoder,
    DualEncoder,
    InheritedDocuments,
    ProjectedEncoder,
    SentenceEncoder,
    StaticEncoder,
    TwoTowers,
    VectorEncoder,
)
from tutelage.models.unet import unet
from tutelage.models.vgg import vgg8, vgg11, vgg13
from tutelage.models.vitpose import vitpose
from tutelage.models.wrn import wide_resnet, wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2

__all__ = [
    "BPRMF",
    "CrossEncoder",
    "DualEncoder",
    "FactorTables",
    "InheritedDocuments",
    "LightGCN",
    "PoseNetwork",
    "ProjectedEncoder",
    "ScoreFunction",
    "SentenceEncoder",
    "StagedNet",
    "StaticEncoder",
    "TwoTowers",
    "VectorEncoder",
    "cifar_resnet",
    "deconv_pose",
    "faster_rcnn",
    "fcos",
    "fpn_backbone",
    "mobilenet_v2",
    "resnet8",
    "resnet8x4",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet44",
    "resnet56",
    "resnet110",
    "retinanet",
    "shufflenet_v1",
    "shufflenet_v2",
    "small_cnn",
    "small_pose",
    "stacked_hourglass",
    "unet",
    "vgg8",
    "vgg11",
    "vgg13",
    "vitpose",
    "wide_resnet",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
]

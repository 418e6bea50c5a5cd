"""Images with labels, from the places where they lie; importing this loads no image library."""

from __future__ import annotations

from tutelage.data.base import Data
from tutelage.data.cifar import CIFAR10, CIFAR100
from tutelage.data.cityscapes import Cityscapes
from tutelage.data.coco import BoxSet, Coco
from tutelage.data.deepforest import DeepForest
from tutelage.data.dense import DenseSet
from tutelage.data.digits import Digits
from tutelage.data.idx import MNIST, FashionMNIST
from tutelage.data.image_folder import ImageFolder
from tutelage.data.image_set import ArraySet, ImageSet, Stream, collate
from tutelage.data.masks import MaskFormat, MaskSet
from tutelage.data.mni152 import MNI152
from tutelage.data.open_set import OpenSet, Unlabelled
from tutelage.data.resized import Resized
from tutelage.data.splits import Splits
from tutelage.data.tuxpaint import TuxPaint
from tutelage.data.voc import VOCSegmentation

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNI152",
    "MNIST",
    "ArraySet",
    "BoxSet",
    "Cityscapes",
    "Coco",
    "Data",
    "DeepForest",
    "DenseSet",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "ImageSet",
    "MaskFormat",
    "MaskSet",
    "OpenSet",
    "Resized",
    "Splits",
    "Stream",
    "TuxPaint",
    "Unlabelled",
    "VOCSegmentation",
    "collate",
]

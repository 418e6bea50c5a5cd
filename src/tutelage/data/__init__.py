"""Data sets, and the samples that they consist of.

IDX, CIFAR and COCO files and image folders are read here rather than by torchvision: nothing is
unpickled that could run code, samples have stable ids, images stay uint8 tensors, and a broken file
is named with how to mend it. Importing this package loads no image library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage._lazy import lazy_names

if TYPE_CHECKING:
    from tutelage.data.base import Data
    from tutelage.data.concat import ConcatSamples, concat
    from tutelage.data.dense import DenseSet
    from tutelage.data.image_data import ImageData
    from tutelage.data.image_set import ArraySet, ImageSet
    from tutelage.data.interaction_files import InteractionFiles
    from tutelage.data.interaction_samples import HeldOutUsers, InteractionSamples
    from tutelage.data.mask_array import MaskArray
    from tutelage.data.masks import MaskFormat, MaskSet
    from tutelage.data.open_set import LabeledWithPools, OpenSet
    from tutelage.data.pose_augmentation import PoseAugmentation
    from tutelage.data.pose_data import PoseData
    from tutelage.data.poses import Joints, PoseArray, PoseSet
    from tutelage.data.query_samples import CorpusSamples, QuerySamples
    from tutelage.data.resized import Resized
    from tutelage.data.retrieval_data import RetrievalContents, RetrievalData
    from tutelage.data.samples import Key, Samples, Stream, collate
    from tutelage.data.sets.beir import Beir
    from tutelage.data.sets.camvid import CamVid
    from tutelage.data.sets.cifar import CIFAR10, CIFAR100
    from tutelage.data.sets.cityscapes import Cityscapes
    from tutelage.data.sets.coco import BoxSet, Coco
    from tutelage.data.sets.coco_pose import CocoPose
    from tutelage.data.sets.cranfield import Cranfield
    from tutelage.data.sets.deepforest import DeepForest
    from tutelage.data.sets.deeplabcut import DeepLabCut
    from tutelage.data.sets.digits import Digits
    from tutelage.data.sets.hugging_face import HuggingFaceImages
    from tutelage.data.sets.image_folder import ImageFolder
    from tutelage.data.sets.image_table import ImageTable
    from tutelage.data.sets.mask_folder import MaskFolder
    from tutelage.data.sets.mni152 import MNI152
    from tutelage.data.sets.mnist import MNIST, FashionMNIST
    from tutelage.data.sets.mpii import Mpii
    from tutelage.data.sets.pen_digits import PenDigits
    from tutelage.data.sets.tar_images import TarImages
    from tutelage.data.sets.text_pairs import TextPairs
    from tutelage.data.sets.trec import Trec
    from tutelage.data.sets.tuxpaint import TuxPaint
    from tutelage.data.sets.vector_files import VectorFiles
    from tutelage.data.sets.voc import VOCSegmentation
    from tutelage.data.sets.wordnet import WordNet
    from tutelage.data.stored_set import ImageStore, StoredImages
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNI152",
    "MNIST",
    "ArraySet",
    "Beir",
    "BoxSet",
    "CamVid",
    "Cityscapes",
    "Coco",
    "CocoPose",
    "ConcatSamples",
    "CorpusSamples",
    "Cranfield",
    "Data",
    "DeepForest",
    "DeepLabCut",
    "DenseSet",
    "Digits",
    "FashionMNIST",
    "HeldOutUsers",
    "HuggingFaceImages",
    "ImageData",
    "ImageFolder",
    "ImageSet",
    "ImageStore",
    "ImageTable",
    "InteractionFiles",
    "InteractionSamples",
    "Joints",
    "Key",
    "LabeledWithPools",
    "MaskArray",
    "MaskFolder",
    "MaskFormat",
    "MaskSet",
    "Mpii",
    "OpenSet",
    "PenDigits",
    "PoseArray",
    "PoseAugmentation",
    "PoseData",
    "PoseSet",
    "QuerySamples",
    "Resized",
    "RetrievalContents",
    "RetrievalData",
    "Samples",
    "StoredImages",
    "Stream",
    "TarImages",
    "TextPairs",
    "Trec",
    "TuxPaint",
    "VOCSegmentation",
    "VectorFiles",
    "WordNet",
    "collate",
    "concat",
]

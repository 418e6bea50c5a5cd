"""Data sets of images: three parts, label subsets, augmentation and input normalization."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tutelage.core.normalization import normalization, normalize_inputs
from tutelage.data._label_sets import random_subset, stratified_sets
from tutelage.data._settings import check_share
from tutelage.data.base import Data
from tutelage.data.dense import DenseSet
from tutelage.data.image_set import ImageSet
from tutelage.data.samples import Samples
from tutelage.data.splits import label_subset, stratified
from tutelage.errors import UserError

RawSplits = tuple[ImageSet, ImageSet | None, ImageSet | None]


class ImageData(Data):
    """A data set of images.

    Attributes:
        mean: per channel, of [0, 1] pixels, for networks without statistics of their own; None
            where networks normalize by themselves, as detectors do.
        std: per channel, of [0, 1] pixels, or None; see `mean`.
        augment: True for the data set's standard augmentation, False for none, or a torchvision v2
            transform.
        validation: share of the training part that is held out for validation, where the data set
            has no validation part.
    """

    mean: Sequence[float] | None
    std: Sequence[float] | None
    augment: bool | nn.Module = False
    validation: float = 0.1

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the labels."""

    @abstractmethod
    def raw_splits(self) -> RawSplits:
        """Return train, validation and test as they are stored; None for a part to cut from train.

        They are not augmented.
        """

    @abstractmethod
    def standard_augmentation(self) -> nn.Module | None:
        """Return what `augment=True` means."""

    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, ImageSet]:
        """Return the parts `train`, `validation` and `test`.

        The cut between them is the same for every seed. The seed draws the label subset and the
        augmentation.

        Args:
            num_labels: number of labeled training images, balanced over classes; None takes all.
            seed: the run's seed.

        Raises:
            UserError: If a part is empty, or there are fewer labels than that.
        """
        train, validation, test = self.raw_splits()
        self._check_not_empty("training", train)
        is_cut = {"training": False, "validation": validation is None, "test": test is None}
        if test is None:
            train, test = _cut(train, 0.2)
        if validation is None:
            check_share("data.validation", self.validation)
            train, validation = _cut(train, self.validation)
        for name, part in (("training", train), ("validation", validation), ("test", test)):
            self._check_not_empty(name, part, is_cut=is_cut[name])
        if num_labels is None:
            labeled = torch.arange(len(train))
        elif train.labels.ndim == 2:
            labeled = random_subset(len(train), num_labels, seed)
        else:
            labeled = label_subset(train.labels, num_labels, seed)
        return {
            "train": train.subset_with(labeled, self.transform(), seed),
            "validation": validation,
            "test": test,
        }

    def _check_not_empty(self, name: str, part: ImageSet, *, is_cut: bool = False) -> None:
        if len(part) == 0:
            advice = "check data.root and data.validation"
            if is_cut:
                advice = "it is a share of the training images: add some, or raise data.validation"
            raise UserError(f"the {name} part of {type(self).__name__} is empty; {advice}")

    def remarks(self, parts: Mapping[str, Samples]) -> list[str]:
        """Return which classes are never trained, and which of the others are never judged."""
        train = parts["train"]
        # An image of a dense set has many classes, or none.
        if isinstance(train, DenseSet) or not isinstance(train, ImageSet) or train.labels.ndim != 1:
            return []
        name = type(self).__name__
        known = set(range(len(self.classes)))
        trained = known & set(train.labels.tolist())
        remarks = []
        untrained = known - trained
        if untrained:
            remarks.append(
                f"the training part of {name} has no image of {self._named(untrained)}, so the "
                "student cannot learn them; check its labels, or add some"
            )
        for part_name in ("validation", "test"):
            part = parts[part_name]
            if not isinstance(part, ImageSet):
                continue
            unjudged = trained - set(part.labels.tolist())
            if unjudged:
                remarks.append(
                    f"the {part_name} part of {name} has no image of {self._named(unjudged)}, so "
                    "its figures say nothing of them; add some, or leave the part out and let it "
                    "be cut from the training images"
                )
        return remarks

    def _named(self, labels: Collection[int]) -> str:
        """Return how many classes of all these are, and the first of their names."""
        listed = ", ".join(repr(self.classes[label]) for label in sorted(labels)[:5])
        more = ", …" if len(labels) > 5 else ""
        return f"{len(labels)} of {len(self.classes)} classes ({listed}{more})"

    def transform(self) -> nn.Module | None:
        """Return the augmentation that the settings ask for."""
        if isinstance(self.augment, nn.Module):
            return self.augment
        return self.standard_augmentation() if self.augment else None

    def normalize(
        self,
        network: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> nn.Module:
        """Let the network shift and scale the images that it is given; returns the same network.

        Where neither the recipe nor the data has statistics, as for detectors, it stays as it is.

        Args:
            network: takes images (N, C, H, W) in [0, 1].
            mean: per channel; None takes the data's.
            std: per channel; None takes the data's.

        Raises:
            UserError: If there is one of the two, but not the other, or if they do not fit.
        """
        mean = self.mean if mean is None else mean
        std = self.std if std is None else std
        if mean is None and std is None:
            return network
        if mean is None or std is None:
            given, missing = ("std", "mean") if mean is None else ("mean", "std")
            raise UserError(
                f"there is a {given} for the inputs of the network, but no {missing}, and "
                f"{type(self).__name__} has none either; give both, or none for networks that "
                "normalize by themselves"
            )
        return normalize_inputs(network, mean, std)

    def input_info(self, network: nn.Module) -> dict[str, Any]:
        """Return the network's statistics, the classes, and how images enter it."""
        statistics = normalization(network)
        if statistics is None:
            return {
                "mean": None,
                "std": None,
                "classes": self.classes,
                "inputs": "images in [0, 1]",
            }
        mean, std = statistics
        return {
            "mean": mean,
            "std": std,
            "classes": self.classes,
            "inputs": "images in [0, 1]; subtract mean and divide by std",
        }

    def label_ids(self) -> list[int] | None:
        """Return the data's own number of each label; default: it has no other than the labels."""
        return None

    def usage_info(self, parts: Mapping[str, Samples]) -> dict[str, Any]:
        """Return how images from outside enter the network, and the data's own class numbers.

        They are `input`, see `ImageInput`, and `ids`, by label.
        """
        test = parts["test"]
        info: dict[str, Any] = {}
        if isinstance(test, ImageSet):
            info["input"] = test.input_rule().record()
        ids = self.label_ids()
        if ids is not None:
            info["ids"] = ids
        return info


def _cut(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """Return the larger rest and this share of the images, with the same balance of classes."""
    cut = stratified_sets if images.labels.ndim == 2 else stratified
    rest, held_out = cut(images.labels, [1 - share, share])
    return images.subset_with(rest, None, 0), images.subset_with(held_out, None, 0)

"""What a recipe's `data` section is: a source of images with three parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.core.configuration import configuration
from tutelage.data.image_set import ImageSet
from tutelage.data.splits import Splits, label_subset, stratified
from tutelage.errors import UserError


class Data(ABC):
    """A data set.

    Attributes:
        mean, std: per channel, of [0, 1] pixels; networks without their own normalisation use them. None where networks
            normalise by themselves, as detectors do.
        augment: True for the data set's standard augmentation, False for none, or a torchvision v2 transform.
        validation: share of the training part that is kept for choosing.
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
    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return (train, validation, test) as they lie on disk; None where they are to be cut from train."""

    @abstractmethod
    def standard_augmentation(self) -> nn.Module | None:
        """Return what `augment=True` means."""

    def splits(self, labels: int | None = None, seed: int = 0) -> Splits:
        """Return the three parts.

        The cut between train, validation and test is the same for every seed. The seed draws the label subset and
        the augmentation.

        Args:
            labels: number of labelled training images, balanced over classes; None takes all.
            seed: the run's seed.
        """
        train, validation, test = self.parts()
        if test is None:
            keep, held = stratified(train.labels, [0.8, 0.2])
            train, test = train.part(keep, None, 0), train.part(held, None, 0)
        if validation is None:
            if not 0 < self.validation < 1:
                raise UserError(f"data.validation is a share between 0 and 1, got {self.validation}")
            keep, held = stratified(train.labels, [1 - self.validation, self.validation])
            train, validation = train.part(keep, None, 0), train.part(held, None, 0)
        for name, part in (("training", train), ("validation", validation), ("test", test)):
            if not len(part):
                raise UserError(
                    f"the {name} part of {type(self).__name__} is empty; check data.root and data.validation"
                )
        chosen = range(len(train)) if labels is None else label_subset(train.labels, labels, seed).tolist()
        return Splits(train.part(_tensor(chosen), self.transform(), seed), validation, test)

    def transform(self) -> nn.Module | None:
        """Return the augmentation that the settings ask for."""
        if isinstance(self.augment, nn.Module):
            return self.augment
        return self.standard_augmentation() if self.augment else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({configuration(self)})"


def _tensor(positions: Sequence[int]) -> Tensor:
    return torch.tensor(list(positions), dtype=torch.int64)


def existing(root: str | Path, name: str, advice: str) -> Path:
    """Return the folder `root`, or raise with what would put it there."""
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"{name} is not at {path}: there is no such folder; {advice}")
    return path

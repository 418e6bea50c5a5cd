"""Open-set data: some classes have labels; other classes and another data set are outliers.

Unlabeled images of three pools can join the training batches, and outliers lie in the validation
and test parts:

    pool    training images                           label in training   in validation and test
    same    of the known classes, without labels      -100                known classes, labeled
            because `num_labels` leaves them out
    near    of the other classes of the data set      -100                -101
    far     of another data set, in the same shape    -100                -102

The cuts of both data sets keep what is trained on apart from what is tested on. The far pool also
differs from the known classes in brightness and resampling, so a high score on it is cheap: look at
the near one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tutelage.core.batch import IGNORE_INDEX, Batch
from tutelage.data.concat import concat
from tutelage.data.image_data import ImageData, RawSplits
from tutelage.data.image_input import ImageInput
from tutelage.data.image_set import ImageSet
from tutelage.data.resized import refuse_dense, resized
from tutelage.data.samples import Key, Stream
from tutelage.errors import UserError, near_misses

OUTLIER_LABELS = {"near": -101, "far": -102}


class OpenSet(ImageData):
    """A data set of which only some classes are known.

    Normalization, augmentation and the cut for validation are those of `labeled`. `num_labels` of a
    recipe counts images of the known classes.

    Args:
        labeled: the data set.
        known: names of its classes that have labels; None knows all, and there is no near pool.
        far: a data set of other things; None has no far pool.
    """

    def __init__(
        self,
        labeled: ImageData,
        known: Sequence[str] | None = None,
        far: ImageData | None = None,
    ) -> None:
        self.labeled = labeled
        self.known = known
        self.far = far
        self.mean = labeled.mean
        self.std = labeled.std
        self.augment = labeled.augment
        self.validation = labeled.validation

    @property
    def classes(self) -> list[str]:
        """The known classes, in the order of the data set."""
        names = self.labeled.classes
        if self.known is None:
            return names
        for name in self.known:
            if name not in names:
                raise UserError(f"data.known: there is no class {name!r}{near_misses(name, names)}")
        if len(set(self.known)) < 2:
            raise UserError(
                f"data.known names {len(set(self.known))} classes, at least 2 are needed; known "
                f"are {names}"
            )
        return [name for name in names if name in self.known]

    def raw_splits(self) -> RawSplits:
        """Return training images with pools, and validation and test images with outliers."""
        labels = self._labels_of_classes()
        parts = self.labeled.splits()
        far_parts = {} if self.far is None else self.far.splits()
        known, pools = _separate(parts["train"], far_parts.get("train"), labels)
        return (
            LabeledWithPools(known, pools),
            _with_outliers(parts["validation"], far_parts.get("validation"), labels),
            _with_outliers(parts["test"], far_parts.get("test"), labels),
        )

    def standard_augmentation(self) -> nn.Module | None:
        """Return that of the labeled data; unlabeled images get it too."""
        return self.labeled.standard_augmentation()

    def _labels_of_classes(self) -> Tensor:
        """Return the label of each class of the labeled data, -1 for an unknown class."""
        known = self.classes
        labels = [known.index(name) if name in known else -1 for name in self.labeled.classes]
        return torch.tensor(labels)


class LabeledWithPools(ImageSet):
    """Labeled images and pools of unlabeled ones, which can join the batches.

    Args:
        images: the labeled ones.
        pools: unlabeled images by name.
    """

    def __init__(self, images: ImageSet, pools: Mapping[str, ImageSet]) -> None:
        super().__init__(images.labels, images.ids, images.augment, images.seed)
        self.images = images
        self.pools = dict(pools)

    @property
    def reads_files(self) -> bool:
        """Whether a batch is read from files."""
        return self.images.reads_files

    @property
    def files_digest(self) -> str | None:
        """What changes with a file that is read."""
        return self.images.files_digest

    def before_loading(self) -> None:
        """Make ready what loading processes share; pools without a share are not read."""
        self.images.before_loading()

    def image(self, position: int) -> Tensor:
        """Return one labeled image without augmentation."""
        return self.images.image(position)

    def input_rule(self) -> ImageInput:
        """Return the rule of the labeled images."""
        return self.images.input_rule()

    def load(self, keys: Sequence[Key]) -> Batch:
        """Return labeled images before they are augmented."""
        return self.images.load(keys)

    def finish(self, loaded: Batch, device: torch.device | str) -> Batch:
        """Return labeled images as one batch."""
        return self.images.finish(loaded, device)

    def subset_with(
        self, positions: Tensor, augment: nn.Module | None, seed: int
    ) -> LabeledWithPools:
        """Return the labeled images at these positions; the others become the pool `same`."""
        unlabeled = torch.ones(len(self), dtype=torch.bool)
        unlabeled[positions] = False
        pools = {}
        for name, pool in self.pools.items():
            pools[name] = pool.subset_with(torch.arange(len(pool)), augment, seed)
        if unlabeled.any():
            rest = unlabeled.nonzero().flatten()
            pools["same"] = self.images.subset_with(rest, augment, seed)
        return LabeledWithPools(self.images.subset_with(positions, augment, seed), pools)

    def with_streams(self, shares: Mapping[str, float]) -> ImageSet:
        """Return these images with a stream of unlabeled ones from every pool that has a share.

        Args:
            shares: pool -> images in a batch per labeled image. Their sum is the size of the
                unlabeled batch, and their ratio is its composition.

        Raises:
            UserError: If there is no such pool, or a share is not positive.
        """
        for name, share in shares.items():
            self._check_share(name, share)
        pools = [self.pools[name] for name in shares]
        joined = concat([self.images, *pools], [None] + [IGNORE_INDEX] * len(pools))
        streams: list[Stream] = []
        first = len(self.images)
        for (name, share), pool in zip(shares.items(), pools, strict=True):
            streams.append(Stream(name, first, len(pool), share))
            first += len(pool)
        joined.streams = tuple(streams)
        return joined

    def _check_share(self, name: str, share: float) -> None:
        if name not in self.pools:
            hint = near_misses(name, self.pools)
            if name == "same":
                hint = "; all images have labels, set num_labels to fewer"
            raise UserError(f"the training data has no unlabeled images {name!r}{hint}")
        if not isinstance(share, (int, float)) or not 0 < share < math.inf:
            raise UserError(
                f"the share of unlabeled images {name!r} must be positive, got {share!r}; or leave "
                "it out"
            )


def _separate(
    images: ImageSet, far_images: ImageSet | None, labels_of_classes: Tensor
) -> tuple[ImageSet, dict[str, ImageSet]]:
    """Return the images of known classes, and the pools that are not empty.

    Args:
        images: of all classes.
        far_images: of another data set, or None.
        labels_of_classes: the new label of each class, -1 for an unknown class.
    """
    refuse_dense(images, "OpenSet")
    labels = labels_of_classes[images.labels]
    is_known = labels >= 0
    known = images.subset_with(is_known.nonzero().flatten(), None, 0)
    known.labels = labels[is_known]
    pools = {"near": images.subset_with((~is_known).nonzero().flatten(), None, 0)}
    if far_images is not None:
        refuse_dense(far_images, "OpenSet")
        if not len(images):
            raise UserError("a part of the labeled data has no image at all; check its root")
        # Of any class: a part may have none of the known ones.
        pools["far"] = resized(far_images, tuple(images.image(0).shape))
    return known, {name: pool for name, pool in pools.items() if len(pool) > 0}


def _with_outliers(
    images: ImageSet, far_images: ImageSet | None, labels_of_classes: Tensor
) -> ImageSet:
    """Return the images of known classes, followed by the outliers; see `_separate`."""
    known, pools = _separate(images, far_images, labels_of_classes)
    outlier_labels = [OUTLIER_LABELS[name] for name in pools]
    return concat([known, *pools.values()], [None, *outlier_labels])

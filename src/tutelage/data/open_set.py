"""Open-set data: some classes of a data set have labels; its other classes and another data set are what nobody taught.

Unlabelled images of these three pools can join the training batches, and outliers lie in the validation and test parts:

    pool    training images                                       label in training   in validation and test
    same    of the known classes, where `labels` leaves them out  -100                known classes, with labels
    near    of the other classes of the data set                  -100                -101
    far     of another data set, brought to size and channels     -100                -102

The cuts of both data sets keep what is trained on apart from what is tested on. The far pool differs from the known
classes in brightness and resampling too, so a high score on it is cheap: look at the near one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from tutelage.core import Method, Step
from tutelage.data.base import Data
from tutelage.data.image_set import Batch, ImageSet, Key, Stream
from tutelage.data.resized import resized
from tutelage.errors import UserError, near_misses

UNLABELLED = -100
OUTLIERS = {"near": -101, "far": -102}


class OpenSet(Data):
    """A data set of which only some classes are known.

    Normalisation, augmentation and the cut for validation are those of `labelled`. `labels` of a recipe counts
    images of the known classes.

    Args:
        labelled: the data set.
        known: names of its classes that have labels; None knows all, and there is no near pool.
        far: a data set of other things; None has no far pool.
    """

    def __init__(self, labelled: Data, known: Sequence[str] | None = None, far: Data | None = None) -> None:
        self.labelled, self.known, self.far = labelled, known, far
        self.mean, self.std = labelled.mean, labelled.std
        self.augment, self.validation = labelled.augment, labelled.validation

    @property
    def classes(self) -> list[str]:
        """The known classes, in the order of the data set."""
        names = self.labelled.classes
        if self.known is None:
            return names
        for name in self.known:
            if name not in names:
                raise UserError(f"data.known: there is no class {name!r}{near_misses(name, names)}")
        if len(set(self.known)) < 2:
            raise UserError(
                f"data.known names {len(set(self.known))} classes, at least 2 are needed; known are {names}"
            )
        return [name for name in names if name in self.known]

    def parts(self) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return training images that know their pools, and validation and test images with outliers."""
        names, known = self.labelled.classes, self.classes
        number = torch.tensor([known.index(name) if name in known else -1 for name in names])
        inner = self.labelled.splits()
        outer = None if self.far is None else self.far.splits()
        found: list[ImageSet] = []
        for part in ("train", "validation", "test"):
            images: ImageSet = vars(inner)[part]
            others: ImageSet | None = None if outer is None else vars(outer)[part]
            labels = number[images.labels]
            mine = images.part((labels >= 0).nonzero().flatten(), None, 0)
            mine.labels = labels[labels >= 0]
            pools = {"near": images.part((labels < 0).nonzero().flatten(), None, 0)}
            if others is not None:
                pools["far"] = resized(others, tuple(mine.image(0).shape))
            pools = {name: pool for name, pool in pools.items() if len(pool)}
            if part == "train":
                found.append(OpenImages(mine, pools))
            else:
                found.append(join([mine, *pools.values()], [None, *(OUTLIERS[name] for name in pools)]))
        return found[0], found[1], found[2]

    def standard_augmentation(self) -> nn.Module | None:
        """Return the labelled data's; unlabelled images get it too."""
        return self.labelled.standard_augmentation()


class OpenImages(ImageSet):
    """Labelled images that know pools of unlabelled ones.

    Args:
        images: the labelled ones.
        pools: unlabelled images by name.
    """

    def __init__(self, images: ImageSet, pools: Mapping[str, ImageSet]) -> None:
        super().__init__(images.labels, images.index, images.augment, images.seed)
        self.images, self.pools = images, dict(pools)

    def image(self, position: int) -> Tensor:
        """Return one labelled image without augmentation."""
        return self.images.image(position)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return a whole batch of labelled images."""
        batch: Batch = self.images.__getitems__(keys)
        return batch

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> OpenImages:
        """Return the labelled images at these positions; the others become the pool `same`."""
        left = torch.ones(len(self), dtype=torch.bool)
        left[positions] = False
        pools = {name: pool.part(torch.arange(len(pool)), augment, seed) for name, pool in self.pools.items()}
        if left.any():
            pools["same"] = self.images.part(left.nonzero().flatten(), augment, seed)
        return OpenImages(self.images.part(positions, augment, seed), pools)

    def beside(self, shares: Mapping[str, float]) -> ImageSet:
        """Return these images with a stream of unlabelled ones from every pool that has a share.

        Args:
            shares: pool → images in a batch per labelled image; the sum is the size of the unlabelled batch, the
                numbers are its make-up.
        """
        for name, share in shares.items():
            if name not in self.pools:
                hint = (
                    "; all images have labels, set labels to fewer" if name == "same" else near_misses(name, self.pools)
                )
                raise UserError(f"the training data has no unlabelled images {name!r}{hint}")
            if not isinstance(share, (int, float)) or not 0 < share < math.inf:
                raise UserError(
                    f"the share of unlabelled images {name!r} must be positive, got {share!r}; or leave it out"
                )
        joined = [self.images, *(self.pools[name] for name in shares)]
        result = join(joined, [None] + [UNLABELLED] * len(shares))
        starts = accumulate(len(images) for images in joined)
        result.streams = tuple(
            Stream(name, first, len(self.pools[name]), share)
            for (name, share), first in zip(shares.items(), starts, strict=False)
        )
        return result


class Joined(ImageSet):
    """Images of several sets, each with its own augmentation; see `join`.

    Args:
        parts: the sets.
        places: (N, 2): of every image, which set it is of and its position there.
        labels, index: see `ImageSet`.
    """

    def __init__(self, parts: Sequence[ImageSet], places: Tensor, labels: Tensor, index: Tensor) -> None:
        super().__init__(labels, index, parts[0].augment, parts[0].seed)
        self.parts, self.places = list(parts), places

    def image(self, position: int) -> Tensor:
        """Return one image without augmentation."""
        part, local = self.places[position].tolist()
        image: Tensor = self.parts[part].image(local)
        return image

    def part(self, positions: Tensor, augment: nn.Module | None, seed: int) -> Joined:
        """Return the items at these positions, with another augmentation; streams are not kept."""
        parts = [part.part(torch.arange(len(part)), augment, seed) for part in self.parts]
        return Joined(parts, self.places[positions], self.labels[positions], self.index[positions])

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        images, labels, index = self.__getitems__([key])
        return images[0], labels[0], index[0]

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return a whole batch; every set gives its own images."""
        epochs, positions = zip(*(key if isinstance(key, tuple) else (0, key) for key in keys), strict=True)
        places = self.places[list(positions)].tolist()
        order, images = [], []
        for number, part in enumerate(self.parts):
            mine = [i for i, (which, _) in enumerate(places) if which == number]
            if mine:
                order += mine
                images.append(part.__getitems__([(epochs[i], places[i][1]) for i in mine])[0])
        back = torch.tensor(order).argsort()
        return torch.cat(images)[back], self.labels[list(positions)], self.index[list(positions)]


def join(parts: Sequence[ImageSet], labels: Sequence[int | None]) -> Joined:
    """Return sets one after the other; the ids of the later ones are counted on, so that none comes twice.

    Args:
        parts: the sets.
        labels: one label for all images of a set, or None to keep its own.
    """
    given = [
        part.labels if label is None else torch.full_like(part.labels, label)
        for part, label in zip(parts, labels, strict=True)
    ]
    index, start = [], 0
    for part in parts:
        index.append(part.index + start)
        start = int(index[-1].max()) + 1
    places = [torch.stack((torch.full_like(p.index, n), torch.arange(len(p))), 1) for n, p in enumerate(parts)]
    return Joined(parts, torch.cat(places), torch.cat(given), torch.cat(index))


class Unlabelled(Method):
    """Unlabelled images beside the labelled ones, for methods that do not bring them themselves; no term of its own.

    `Together([KD(), Unlabelled({"near": 1.0})])` distils on both, and the labels teach what they label.

    >>> Unlabelled({"near": 0.5, "far": 0.5}).extra_repr()
    "shares={'near': 0.5, 'far': 0.5}"

    Args:
        shares: pool → images in a batch per labelled image; see `OpenImages.beside`.
    """

    listens = False

    def __init__(self, shares: Mapping[str, float]) -> None:
        super().__init__()
        self.shares = dict(shares)

    def data(self, train: ImageSet, teacher: object) -> ImageSet:
        """Join the pools."""
        return train.beside(self.shares)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Add nothing."""
        return {}

"""Data sets for poses: names of the joints, the mirror, the size of the inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.core.heatmaps import flip_order
from tutelage.data._pose_geometry import invert_affine, region_affine, warp
from tutelage.data.image_data import ImageData
from tutelage.data.image_input import as_pixels
from tutelage.data.image_set import to_float
from tutelage.data.pose_augmentation import PoseAugmentation
from tutelage.data.poses import PoseSet
from tutelage.errors import UserError

PoseSplits = tuple[PoseSet, PoseSet | None, PoseSet | None]


class PoseData(ImageData):
    """A data set for poses.

    Attributes:
        size: height and width of the inputs.
        augment: True for the data set's standard augmentation, False for none, or a
            `PoseAugmentation`.
        flip_pairs: names of the joints that change places in a mirror.
    """

    size: tuple[int, int]
    flip_pairs: Sequence[Sequence[str]] = ()

    @property
    def classes(self) -> list[str]:
        """Names of the joints: what a network has learned, in the order of its maps."""
        return self.joint_names

    @property
    @abstractmethod
    def joint_names(self) -> list[str]:
        """Names of the joints."""

    @property
    def pairs(self) -> Tensor:
        """Which joint each one is in a mirror, (K,).

        Raises:
            UserError: If flip pairs name unknown joints.
        """
        return flip_order(self.joint_names, self.flip_pairs)

    def splits(self, num_labels: int | None = None, seed: int = 0) -> Mapping[str, PoseSet]:
        """Return the parts, see `ImageData`.

        Raises:
            UserError: If a part is empty, or the augmentation is none for poses or mirrors without
                pairs.
        """
        transform = self.transform()
        if transform is not None and not isinstance(transform, PoseAugmentation):
            raise UserError(
                f"data.augment is a {type(transform).__name__}, but points have to move with their "
                "images; take tutelage.data.PoseAugmentation, true or false"
            )
        if transform is not None and transform.mirror and not self.flip_pairs:
            raise UserError(
                "data.augment mirrors, but data.flip_pairs does not say which joints change "
                "places; name them, or set mirror to 0"
            )
        parts = super().splits(num_labels, seed)
        poses = {name: part for name, part in parts.items() if isinstance(part, PoseSet)}
        for name, part in poses.items():
            if not bool((part.joints.weights > 0).any()):
                raise UserError(
                    f"no joint is labeled in the {name} part of {type(self).__name__}; check "
                    "data.root and the annotations"
                )
        return poses

    def read_input(self, source: Any) -> Batch:
        """Return an image as a batch of one input, with the image itself as `source_image`.

        Args:
            source: a path, a PIL image, or a tensor, see `as_pixels`.

        Raises:
            UserError: If it cannot be decoded.
        """
        image = as_pixels(source)
        height, width = image.shape[-2:]
        affine = region_affine(self.whole_region(width, height), self.size)
        pixels = to_float(image)
        if self.mean is not None and len(self.mean) == 1:
            pixels = pixels.mean(0, keepdim=True)
        return Batch(
            {
                "inputs": warp(pixels, affine, self.size)[None],
                "crops": invert_affine(affine)[None],
                "source_image": [image],
            }
        )

    def whole_region(self, width: int, height: int) -> Tensor:
        """Return the region (4,) that an image of one's own is seen in: all of it."""
        return torch.tensor([0.0, 0.0, width, height])

    def standard_augmentation(self) -> nn.Module | None:
        """Turn, scale and shift a little."""
        return PoseAugmentation(rotation=8, scale=0.12, shift=8 * self.size[0] / 128)


def check_pose_size(size: object) -> None:
    """Raise unless a size is height and width in pixels.

    Raises:
        UserError: If it is anything else.
    """
    is_pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not is_pair or not all(isinstance(side, int) and side >= 8 for side in size):  # type: ignore[attr-defined]
        raise UserError(f"data.size is height and width in pixels, at least 8, got {size!r}")


def block_split(count: int, sizes: Sequence[int], fold: int) -> list[Tensor]:
    """Return positions of parts that are blocks of neighbors, since neighboring frames are alike.

    >>> [part.tolist() for part in block_split(6, (3, 1, 2), fold=0)]
    [[0, 1, 2], [3], [4, 5]]
    >>> [part.tolist() for part in block_split(6, (3, 1, 2), fold=1)]
    [[2, 3, 4], [5], [0, 1]]

    Args:
        count: number of samples.
        sizes: of the parts, the last one tested on.
        fold: moves all blocks on by so many times the size of the last one.

    Raises:
        UserError: If the sizes are not three, or do not add up to the count.
    """
    is_whole = all(isinstance(number, int) for number in (*sizes, fold))
    if not is_whole or len(sizes) != 3 or min(sizes) < 1:
        raise UserError(
            f"data.blocks are three whole numbers of at least 1 and data.fold is a whole number, "
            f"got {list(sizes)} and {fold}"
        )
    if sum(sizes) != count:
        raise UserError(
            f"the blocks {list(sizes)} do not add up to the {count} samples; give sizes of "
            "training, validation and test that do"
        )
    order = (torch.arange(count) + fold * sizes[-1]) % count
    return [part.sort().values for part in torch.split(order, list(sizes))]

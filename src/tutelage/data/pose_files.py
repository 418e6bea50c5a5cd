"""Persons in image files: the region around each is cut out when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.data._files import decode_image
from tutelage.data._settings import check_share
from tutelage.data.poses import Joints, PoseSet
from tutelage.data.splits import stratified


class PoseFiles(PoseSet):
    """Persons in image files, several of which may be in one image.

    Args:
        paths: of all images.
        sizes: width and height of each image in which its points are given; None for an image that
            is put upright as its EXIF orientation says.
        images: (N,) int64, which image each sample is in.
        joints: as `PoseSet`.
        size: as `PoseSet`.
        pairs: as `PoseSet`.
        ids: as `PoseSet`.
        augment: as `PoseSet`.
        seed: as `PoseSet`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        sizes: Sequence[tuple[int, int] | None],
        images: Tensor,
        joints: Joints,
        size: tuple[int, int],
        pairs: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(joints, size, pairs, ids, augment, seed)
        self.paths = paths
        self.sizes = sizes
        self.images = images

    @property
    def reads_files(self) -> bool:
        """Images are decoded whenever they are read."""
        return True

    def image(self, position: int) -> Tensor:
        """Decode the image of a sample."""
        index = int(self.images[position])
        return decode_image(self.paths[index], self.sizes[index])

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> PoseFiles:
        """Return the samples at these positions, with another augmentation."""
        return PoseFiles(
            paths=self.paths,
            sizes=self.sizes,
            images=self.images[positions],
            joints=self.joints[positions],
            size=self.size,
            pairs=self.pairs,
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )


def regions_around(
    centers: Tensor, extents: Tensor, size: tuple[int, int], padding: float = 1.25
) -> Tensor:
    """Return regions with the proportions of the input around persons.

    >>> regions_around(torch.tensor([[50.0, 50.0]]), torch.tensor([[20.0, 80.0]]), (256, 192))
    tensor([[ 12.5000,   0.0000,  75.0000, 100.0000]])

    Args:
        centers: (N, 2), x and y in pixels, the left edge of the image at 0.
        extents: (N, 2), width and height of the person in pixels.
        size: height and width of the input.
        padding: factor of the region.

    Returns:
        (N, 4), left, top, width and height.
    """
    aspect = size[1] / size[0]
    width = torch.maximum(extents[:, 0], extents[:, 1] * aspect) * padding
    height = width / aspect
    left = centers[:, 0] - width / 2
    top = centers[:, 1] - height / 2
    return torch.stack([left, top, width, height], -1)


def cut_by_image(samples: PoseFiles, share: float) -> tuple[PoseFiles, PoseFiles]:
    """Return the larger rest and the persons in this share of the images.

    Persons of one image stay together, since they are seen in each other's regions. Of two images
    or more at least one is held out.

    Args:
        samples: of a training part.
        share: `data.validation`.

    Raises:
        UserError: If it is no share.
    """
    check_share("data.validation", share)
    images, groups = torch.unique(samples.images, return_inverse=True)
    _, held_out = stratified(torch.zeros(len(images), dtype=torch.int64), [1 - share, share])
    if len(held_out) == 0 and len(images) > 1:
        held_out = torch.tensor([len(images) - 1])
    is_held_out = torch.isin(groups, held_out)
    rest, validation = (mask.nonzero()[:, 0] for mask in (~is_held_out, is_held_out))
    return samples.subset_with(rest, None, 0), samples.subset_with(validation, None, 0)

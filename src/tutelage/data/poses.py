"""Images with joints: a region of each image is cut out, and the points move with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tutelage.core.batch import Batch
from tutelage.data._pose_geometry import apply_affine, invert_affine, region_affine, warp
from tutelage.data.image_input import ImageInput
from tutelage.data.image_set import ImageSet, to_float
from tutelage.data.pose_augmentation import PoseDraw
from tutelage.data.samples import Key


@dataclass(frozen=True)
class Joints:
    """The joints of all samples of a part.

    Attributes:
        points: (N, K, 2) float32, x and y in pixels of the stored image, whose first pixel is at 0;
            NaN for a joint without a label.
        weights: (N, K) float32, 0 for a joint without a label.
        regions: (N, 4) float32, left, top, width and height of what is cut out, in pixels of the
            stored image, whose left edge is 0.
        extras: further numbers by name, (N, ...) each, which join the batch: `reference` (N,) is
            the length in pixels of the image to which errors are related, such as the size of a
            head; `area`, `image_id` and `image_points` are those of COCO.
    """

    points: Tensor
    weights: Tensor
    regions: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, positions: Tensor) -> Joints:
        return Joints(
            points=self.points[positions],
            weights=self.weights[positions],
            regions=self.regions[positions],
            extras={name: values[positions] for name, values in self.extras.items()},
        )


class PoseSet(ImageSet):
    """A part of a data set for poses.

    A batch has `inputs` (N, C, H, W) float32 in [0, 1]; `labels` (N, K, 3) float32: x and y in
    pixels of the input, and the weight, 0 for a joint that has no label or has left the image;
    without augmentation `joints`, the same with the joints beside the region, which are tested on;
    `crops` (N, 2, 3), the affine map from pixels of the input to those of the stored image; and the
    extras of the joints, of which `reference` is in pixels of the input.

    Args:
        joints: of all samples.
        size: height and width of the inputs.
        pairs: (K,), which joint each one is in a mirror.
        ids: (N,) int64.
        augment: a `PoseAugmentation`, or None.
        seed: of the augmentation.
    """

    def __init__(
        self,
        joints: Joints,
        size: tuple[int, int],
        pairs: Tensor,
        ids: Tensor,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(torch.zeros(len(ids), dtype=torch.int64), ids, augment, seed)
        self.joints = joints
        self.size = size
        self.pairs = pairs

    @abstractmethod
    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> PoseSet:
        """Return the samples at these positions, with another augmentation."""

    def input_points(self) -> Tensor:
        """Return the labels (N, K, 3) of all samples as they are without augmentation."""
        affine = region_affine(self.joints.regions, self.size)
        return _labels(apply_affine(affine, self.joints.points), self.joints.weights, self.size)

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Return the samples with these keys as one batch."""
        images = []
        labels = []
        affines = []
        for epoch, position in keys:
            image, points, affine = self.pose_sample(epoch, position)
            images.append(image)
            labels.append(points)
            affines.append(affine)
        batch = self._with_ids(keys, torch.stack(images), torch.stack(labels))
        affine = torch.stack(affines)
        if self.augment is None:
            batch = batch.with_fields({"joints": self._all_joints(keys, affine)})
        return batch.with_fields({"crops": invert_affine(affine), **self._extras(keys, affine)})

    def input_rule(self) -> ImageInput:
        """Return that a region of an image is fitted into the size of the inputs."""
        return ImageInput(int(self.image(0).shape[0]), self.size, "region")

    def sample(self, epoch: int, position: int) -> tuple[Tensor, Tensor]:
        """Return image and labels of one sample, augmented."""
        image, labels, _ = self.pose_sample(epoch, position)
        return image, labels

    def pose_sample(self, epoch: int, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the input (C, H, W), the labels (K, 3) and the affine map from image to input."""
        affine = region_affine(self.joints.regions[position], self.size)
        points = self.joints.points[position]
        weights = self.joints.weights[position]
        if self.augment is not None:
            draw = self._augmented(epoch, position, self.size)
            assert isinstance(draw, PoseDraw)
            affine = draw.after(affine)
            if draw.is_mirrored:
                points = points[self.pairs]
                weights = weights[self.pairs]
        image = warp(to_float(self.image(position)), affine, self.size)
        return image, _labels(apply_affine(affine, points), weights, self.size), affine

    def _all_joints(self, keys: Sequence[Key], affine: Tensor) -> Tensor:
        """Return all labeled points (N, K, 3), those beside the region included."""
        positions = torch.tensor([position for _, position in keys])
        points = apply_affine(affine, self.joints.points[positions]).nan_to_num()
        return torch.cat([points, self.joints.weights[positions][..., None]], -1)

    def _extras(self, keys: Sequence[Key], affine: Tensor) -> dict[str, Tensor]:
        """Return the extras of these samples, at the scale of the inputs."""
        positions = [position for _, position in keys]
        extras = {name: values[positions] for name, values in self.joints.extras.items()}
        if "reference" in extras:
            extras["reference"] = extras["reference"] * _scale(affine)
        return extras


def _labels(points: Tensor, weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Return labels (..., K, 3); a point beside the image has no weight, and is put to 0."""
    height, width = size
    x, y = points.unbind(-1)
    # Comparisons with NaN are false.
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    weight = weights * inside
    known = torch.where((weight > 0)[..., None], points, torch.zeros_like(points))
    return torch.cat([known, weight[..., None]], -1)


class PoseArray(PoseSet):
    """Images with joints in memory.

    Args:
        images: (N, C, H, W) uint8.
        joints: as `PoseSet`.
        size: as `PoseSet`.
        pairs: as `PoseSet`.
        ids: as `PoseSet`; None counts from 0.
        augment: as `PoseSet`.
        seed: as `PoseSet`.
    """

    def __init__(
        self,
        images: Tensor,
        joints: Joints,
        size: tuple[int, int],
        pairs: Tensor,
        ids: Tensor | None = None,
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        ids = torch.arange(len(joints)) if ids is None else ids
        super().__init__(joints, size, pairs, ids, augment, seed)
        self.images = images

    def image(self, position: int) -> Tensor:
        """Return one image as it is stored."""
        return self.images[position]

    def subset_with(self, positions: Tensor, augment: nn.Module | None, seed: int) -> PoseArray:
        """Return the samples at these positions, with another augmentation."""
        return PoseArray(
            images=self.images[positions],
            joints=self.joints[positions],
            size=self.size,
            pairs=self.pairs,
            ids=self.ids[positions],
            augment=augment,
            seed=seed,
        )


def resized_joints(joints: Joints, size: tuple[int, int]) -> Joints:
    """Return joints for images whose regions were brought to this size."""
    affine = region_affine(joints.regions, size)
    height, width = size
    regions = torch.tensor([[0.0, 0.0, width, height]]).repeat(len(joints), 1)
    extras = dict(joints.extras)
    if "reference" in extras:
        extras["reference"] = extras["reference"] * _scale(affine)
    return replace(
        joints, points=apply_affine(affine, joints.points), regions=regions, extras=extras
    )


def _scale(affine: Tensor) -> Tensor:
    """Return the factor of lengths (N,) of maps whose axes have about the same."""
    area: Tensor = torch.linalg.det(affine[:, :, :2].double()).abs()
    return area.sqrt().float()

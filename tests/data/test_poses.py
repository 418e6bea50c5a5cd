"""Images and points move together: crops, augmentation, mirrors, weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tutelage.core.heatmaps import flip_order
from tutelage.data import Joints, PoseArray, PoseAugmentation
from tutelage.data._pose_geometry import (
    apply_affine,
    compose_affine,
    invert_affine,
    region_affine,
    turn_and_scale,
    warp,
)
from tutelage.data.pose_data import block_split
from tutelage.errors import UserError

NAMES = ["nose", "left", "right"]
PAIRS = flip_order(NAMES, [("left", "right")])


def spots(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image with a smooth bright spot at each point."""
    y = torch.arange(size[0])[:, None]
    x = torch.arange(size[1])[None]
    image = torch.zeros(size)
    for px, py in points.tolist():
        image = image + torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
    return (image.clamp(max=1) * 255).round().to(torch.uint8)[None]


def brightest(image: Tensor, near: Tensor) -> Tensor:
    """Return the center of the light within five pixels of a point."""
    y, x = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float32) for side in image.shape[-2:]), indexing="ij"
    )
    window = ((x - near[0]).abs() <= 5) & ((y - near[1]).abs() <= 5)
    light = image[0] * window
    return torch.stack([(light * x).sum(), (light * y).sum()]) / light.sum()


POINTS = torch.tensor([[30.0, 20.0], [50.0, 44.0], [24.0, 50.0]])


def pose_set(
    augment: PoseAugmentation | None = None,
    region: tuple[float, float, float, float] = (0, 0, 80, 64),
    size: tuple[int, int] = (64, 80),
) -> PoseArray:
    image = spots(POINTS, (64, 80))
    joints = Joints(POINTS[None], torch.ones(1, 3), torch.tensor([region]).float())
    return PoseArray(image[None], joints, size, PAIRS, None, augment)


def test_without_augmentation_image_and_points_stay() -> None:
    batch = pose_set().batch([(0, 0)])
    assert torch.equal(batch.inputs[0], pose_set().images[0].float() / 255)
    assert torch.equal(batch.labels[0, :, :2], POINTS)
    assert batch.views.tolist() == [0]


@pytest.mark.parametrize(
    ("region", "size"),
    [((0, 0, 80, 64), (32, 40)), ((10, 8, 60, 48), (48, 60)), ((20, 10, 40, 50), (100, 80))],
)
def test_points_follow_the_crop(
    region: tuple[float, float, float, float], size: tuple[int, int]
) -> None:
    batch = pose_set(region=region, size=size).batch([(0, 0)])
    assert batch.inputs.shape[-2:] == size
    for x, y, weight in batch.labels[0].tolist():
        if weight and 6 <= x < size[1] - 6 and 6 <= y < size[0] - 6:
            found = brightest(batch.inputs[0], torch.tensor([x, y]))
            assert (found - torch.tensor([x, y])).norm() < 0.5
    back = apply_affine(batch["crops"][0], batch.labels[0, :, :2])
    seen = batch.labels[0, :, 2] > 0
    torch.testing.assert_close(back[seen], POINTS[seen], rtol=0, atol=1e-3)


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_points_follow_the_augmentation(mirror: float) -> None:
    augment = PoseAugmentation(rotation=20, scale=0.2, shift=4, mirror=mirror)
    samples = pose_set(augment)
    for epoch in range(6):
        batch = samples.batch([(epoch, 0)])
        for joint, (x, y, weight) in enumerate(batch.labels[0].tolist()):
            if not weight or not (6 <= x < 74 and 6 <= y < 58):
                continue
            found = brightest(batch.inputs[0], torch.tensor([x, y]))
            assert (found - torch.tensor([x, y])).norm() < 0.8
            # In a mirror the left joint is where the right one was.
            source = POINTS[PAIRS[joint] if mirror else joint]
            back = apply_affine(batch["crops"][0], torch.tensor([[x, y]]))[0]
            torch.testing.assert_close(back, source, rtol=0, atol=1e-3)
    assert torch.equal(samples.batch([(3, 0)]).inputs, samples.batch([(3, 0)]).inputs)


def test_a_point_that_leaves_the_image_loses_its_weight() -> None:
    batch = pose_set(region=(40, 0, 40, 64), size=(64, 40)).batch([(0, 0)])
    assert batch.labels[0, :, 2].tolist() == [0.0, 1.0, 0.0]
    assert batch.labels[0, 0].tolist() == [0.0, 0.0, 0.0]


def test_a_missing_point_stays_missing_in_a_mirror() -> None:
    joints = Joints(
        torch.tensor([[[30.0, 20.0], [torch.nan, torch.nan], [24.0, 50.0]]]),
        torch.tensor([[1.0, 0.0, 1.0]]),
        torch.tensor([[0.0, 0.0, 80.0, 64.0]]),
    )
    augment = PoseAugmentation(mirror=1.0)
    samples = PoseArray(torch.zeros(1, 1, 64, 80).byte(), joints, (64, 80), PAIRS, None, augment)
    labels = samples.batch([(0, 0)]).labels[0]
    assert labels[:, 2].tolist() == [1.0, 1.0, 0.0]
    assert labels[1, :2].tolist() == [79 - 24, 50]
    assert labels.isfinite().all()


def test_affine_maps_compose_and_invert() -> None:
    first = region_affine(torch.tensor([3.0, 5.0, 40.0, 30.0]), (64, 64))
    second = turn_and_scale((64, 64), 33, 1.3, (2.0, -4.0))
    both = compose_affine(second, first)
    points = torch.rand(5, 2) * 60
    torch.testing.assert_close(
        apply_affine(both, points), apply_affine(second, apply_affine(first, points))
    )
    back = apply_affine(invert_affine(both), apply_affine(both, points))
    torch.testing.assert_close(back, points, rtol=0, atol=1e-3)


def test_a_strong_reduction_does_not_alias() -> None:
    stripes = (torch.arange(256) % 2).float().expand(1, 256, 256)
    affine = region_affine(torch.tensor([0.0, 0.0, 256.0, 256.0]), (32, 32))
    small = warp(stripes, affine, (32, 32))
    assert (small[:, 1:-1, 1:-1] - 0.5).abs().max() < 0.02


def test_blocks_rotate() -> None:
    train, validation, test = block_split(90, (63, 9, 18), fold=1)
    assert test.tolist() == list(range(18))
    assert validation.tolist() == list(range(81, 90))
    assert train.tolist() == list(range(18, 81))
    with pytest.raises(UserError, match=r"blocks \[63, 9, 19\] do not add up to the 90"):
        block_split(90, (63, 9, 19), fold=0)


def test_wrong_pairs_and_augmentations_are_named() -> None:
    with pytest.raises(UserError, match=r"names 'tail', which is none of the joints"):
        flip_order(NAMES, [("left", "tail")])
    with pytest.raises(UserError, match="not two joints that are in no other pair"):
        flip_order(NAMES, [("left", "right"), ("right", "nose")])
    with pytest.raises(UserError, match="not two joints"):
        flip_order(NAMES, [("left", "left")])
    with pytest.raises(UserError, match="shares from 0 to 1, got 2"):
        PoseAugmentation(mirror=2)
    with pytest.raises(UserError, match=r"below 1, got 0\.0, 0\.0 and 1\.5"):
        PoseAugmentation(scale=1.5)
    for wrong in ({"rotation": float("nan")}, {"shift": float("inf")}):
        with pytest.raises(UserError, match="rotation and shift are finite"):
            PoseAugmentation(**wrong)
    with pytest.raises(UserError, match="distribution is 'uniform' or 'normal', got 'cauchy'"):
        PoseAugmentation(distribution="cauchy")  # type: ignore[arg-type]

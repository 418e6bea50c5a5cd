"""Targets and decoding: the official code's numbers, borders, mirrors."""

from __future__ import annotations

import math

import pytest
import torch

from tests.helpers.vectors import cases, tensor
from tutelage.errors import UserError
from tutelage.tasks.pose import decode, gaussian_maps
from tutelage.tasks.pose.heatmaps import flip_maps, stride_of


@pytest.mark.parametrize("case", [1, 2, 4, 5])
def test_targets_are_those_of_the_official_code(case: int) -> None:
    facts = cases("okdhp")[f"case{case}"]
    points = tensor("okdhp", f"case{case}_joints")
    points[:, 2] = tensor("okdhp", f"case{case}_vis")[:, 0]
    width, height = facts["heatmap_wh"]
    stride = (facts["image_wh"][1] / height, facts["image_wh"][0] / width)
    maps, weight = gaussian_maps(
        points[None], (height, width), stride, sigma=facts["sigma"], official=True
    )
    expected = tensor("okdhp", f"case{case}_target")
    torch.testing.assert_close(maps[0], expected, rtol=0, atol=1e-6)
    assert torch.equal(weight[0], tensor("okdhp", f"case{case}_target_weight")[:, 0])


def test_a_map_without_a_pixel_has_no_weight() -> None:
    """The official code gives x = -30 an empty map with weight 1, and rounds -0.9 to 0."""
    points = torch.tensor([[[-30.0, 20.0, 1.0], [-0.9 * 4 - 2, 20.0, 1.0]]])
    maps, weight = gaussian_maps(points, (16, 16), (4, 4))
    assert weight.tolist() == [[0.0, 1.0]]
    assert maps[0, 0].abs().sum() == 0
    # The center is -1, so that the first column is one pixel away.
    assert maps[0, 1].amax().item() == pytest.approx(math.exp(-1 / 8))
    _, official = gaussian_maps(points, (16, 16), (4, 4), official=True)
    assert official.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("case", [22, 26])
def test_points_are_those_of_the_official_code(case: int) -> None:
    maps = tensor("okdhp", f"case{case}_pred")
    coarse, scores = decode(maps, refine=False)
    assert torch.equal(coarse, tensor("okdhp", f"case{case}_max_preds"))
    assert torch.equal(scores, tensor("okdhp", f"case{case}_max_vals")[..., 0])
    assert torch.equal(decode(maps)[0], tensor("okdhp", f"case{case}_refined"))


@pytest.mark.parametrize("stride", [2, 4])
def test_a_point_survives_the_round_trip_to_half_a_pixel_of_the_map(stride: int) -> None:
    points = torch.rand(5, 7, 3) * 40 + 12
    points[..., 2] = 1.0
    maps, _ = gaussian_maps(points, (64 // stride, 64 // stride), (stride, stride))
    found, _ = decode(maps)
    assert (found * stride - points[..., :2]).abs().max() <= stride / 2 + 1e-4


def test_mirrored_maps_of_a_mirrored_image_are_those_of_the_image() -> None:
    points = torch.tensor([[[10.0, 12.0, 1.0], [40.0, 20.0, 1.0]]])
    mirrored = points[:, [1, 0]].clone()
    mirrored[..., 0] = 63 - mirrored[..., 0]
    pairs = torch.tensor([1, 0])
    direct, _ = gaussian_maps(points, (64, 64), (1, 1))
    other, _ = gaussian_maps(mirrored, (64, 64), (1, 1))
    torch.testing.assert_close(flip_maps(other, pairs, shift=False), direct)
    shifted = flip_maps(other, pairs)
    assert torch.equal(decode(shifted, refine=False)[0][..., 0], points[..., 0] + 1)


def test_strides_that_differ_are_named() -> None:
    with pytest.raises(UserError, match=r"maps of 16 × 16 from images of 64 × 48, a stride of 4 "):
        stride_of(torch.zeros(1, 3, 64, 48), torch.zeros(1, 2, 16, 16))


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(UserError, match=r"floats \(N, K, 3\): x, y and weight, got \(1, 2, 2\)"):
        gaussian_maps(torch.zeros(1, 2, 2), (8, 8), (4, 4))
    with pytest.raises(UserError, match="sigma and stride are positive, got 0"):
        gaussian_maps(torch.zeros(1, 2, 3), (8, 8), (4, 4), sigma=0)
    for maps in (torch.zeros(2, 8, 8), torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 2, 8, 8).long()):
        with pytest.raises(UserError, match=r"maps are floats \(N, K, h, w\)"):
            decode(maps)
    with pytest.raises(UserError, match="pairs are one for each joint"):
        flip_maps(torch.zeros(1, 3, 8, 8), torch.tensor([1, 0]))

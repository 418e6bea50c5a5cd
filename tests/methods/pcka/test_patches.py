"""How maps are cut into patches, against the official cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.harness import tensor
from tutelage.errors import UserError
from tutelage.methods.pcka import PCKA, pcka_loss
from tutelage.methods.pcka.patches import patch_grid


def maps_of(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, height, width)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_patches_are_the_official_ones(role: str) -> None:
    maps = tensor("pcka", f"c04_{role}")
    grid = patch_grid(maps, maps)
    patches = grid.cut(grid.resize(maps))
    assert torch.allclose(patches, tensor("pcka", f"c04_{role}_patches"), rtol=0, atol=1e-14)


def test_auto_halves_the_patch_of_small_maps_until_there_are_four() -> None:
    sizes = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (100, 167), (7, 11)]
    levels = [maps_of(*size) for size in sizes]
    grids = [patch_grid(maps, maps, patch_size="auto") for maps in levels]
    assert [grid.patch_size for grid in grids] == [16, 16, 8, 4, 2, 1, 16, 4]
    assert all(grid.num_patches >= 4 for grid in grids)
    for maps in levels:
        terms = pcka_loss(
            maps, torch.randn_like(maps), intra_weight=1.0, inter_weight=1.0, patch_size="auto"
        )
        assert all(0 < term < 1 for term in terms.values())
    with pytest.raises(UserError, match="a map of 1×1 gives 1 patches of 1×1"):
        pcka_loss(maps_of(1, 1), maps_of(1, 1), patch_size="auto")


@pytest.mark.parametrize(
    ("image", "counts"),
    [
        ((800, 1333), [273, 77, 24, 6, 2, 1]),
        ((640, 640), [100, 25, 9, 4, 1, 1]),
        ((512, 512), [64, 16, 4, 1, 1, 1]),
        ((320, 320), [25, 9, 4, 1, 1, 1]),
    ],
)
def test_pyramid_levels_have_as_many_patches_as_the_official_cut(
    image: tuple[int, int], counts: list[int]
) -> None:
    height, width = image
    strides = (4, 8, 16, 32, 64, 128)
    levels = [maps_of(-(-height // stride), -(-width // stride), 1) for stride in strides]
    assert [patch_grid(maps, maps).num_patches for maps in levels] == counts


def test_maps_of_other_sizes_are_related_if_they_round_up_to_one_grid() -> None:
    student, teacher = torch.randn(2, 3, 29, 40), torch.randn(2, 3, 25, 42)
    value = pcka_loss(student, teacher)["intra"]
    resized = [
        torch.nn.functional.interpolate(maps, (32, 48), mode="bilinear", align_corners=False)
        for maps in (student, teacher)
    ]
    assert torch.isclose(value, pcka_loss(*resized)["intra"], atol=1e-6)
    with pytest.raises(
        UserError, match=r"29×40 and the teacher's 25×50: 2×3 and 2×4 patches.*transformed batch"
    ):
        pcka_loss(student, torch.randn(2, 3, 25, 50))


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 4, 32, 32), "use an adapter"),
        (torch.zeros(2, 3, 32, 32), torch.zeros(3, 3, 32, 32), "the same images on both sides"),
        (torch.zeros(2, 3, 32), torch.zeros(2, 3, 32), "tap convolutional maps"),
        (torch.zeros(0, 3, 32, 32), torch.zeros(0, 3, 32, 32), "tap convolutional maps"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int32), torch.zeros(2, 3, 32, 32), "floating-point"),
    ],
)
def test_maps_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pcka_loss(student, teacher)


@pytest.mark.parametrize("patch_size", [0, "big", 2.5])
def test_a_wrong_patch_size_is_named(patch_size: Any) -> None:
    message = "patch_size must be a positive integer or 'auto', got"
    with pytest.raises(UserError, match=message):
        PCKA({"a": "b"}, patch_size=patch_size)
    with pytest.raises(UserError, match=message):
        pcka_loss(maps_of(32, 32), maps_of(32, 32), patch_size=patch_size)


def test_a_wrong_mean_is_named() -> None:
    with pytest.raises(UserError, match=r"over is 'channel', 'image' or 'position', got 'batch'"):
        PCKA({"a": "b"}, over="batch")
    with pytest.raises(UserError, match=r"over is 'channel', 'image' or 'position', got 'batch'"):
        pcka_loss(maps_of(32, 32), maps_of(32, 32), over="batch")

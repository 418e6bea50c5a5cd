"""Augmentation of whole batches gives the pixels of torchvision, image by image."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from tutelage.data import ArraySet
from tutelage.data._augmentation import PaddedCrop


def images(channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (30, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    ("shape", "size", "padding"), [((3, 32, 32), 32, 4), ((1, 9, 12), 8, 0), ((2, 8, 11), 8, 0)]
)
def test_a_whole_batch_has_the_pixels_of_torchvision(
    shape: tuple[int, int, int], size: int, padding: int, flip: bool
) -> None:
    steps: list[nn.Module] = [v2.RandomCrop(size, padding=padding)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    pixels = images(*shape)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    keys = [(epoch, position) for epoch in (0, 3) for position in range(len(pixels))]
    crop = PaddedCrop(size, padding, flip)
    whole = ArraySet(pixels, labels, augment=crop, seed=2).batch(keys)
    single = ArraySet(pixels, labels, augment=v2.Compose(steps), seed=2).batch(keys)
    assert torch.equal(whole.inputs, single.inputs)
    assert torch.equal(whole.views, single.views)
    torch.manual_seed(7)
    expected = v2.Compose(steps)(pixels[3])
    torch.manual_seed(7)
    assert torch.equal(crop(pixels[3]), expected)

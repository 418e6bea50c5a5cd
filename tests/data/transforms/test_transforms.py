"""Each image of a batch gets the pixels that torchvision gives it with the same parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tutelage import UserError
from tutelage.data import ArraySet
from tutelage.data.transforms import (
    BatchTransform,
    ColorJitter,
    Compose,
    Draws,
    PaddedCrop,
    RandAugment,
    RandomHorizontalFlip,
    RandomResizedCrop,
)
from tutelage.data.transforms.rand_augment import OPERATIONS, SIGNED


def images(channels: int = 3, height: int = 24, width: int = 24, count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 6, generator=generator)
    smooth = functional.resize(coarse, [height, width])
    return (smooth * 255).round().to(torch.uint8)


def draws(count: int = 40, view: int = 3) -> Draws:
    return Draws(torch.full((count,), view), torch.arange(count))


STANDARD = [
    RandomHorizontalFlip(),
    PaddedCrop(24, padding=3),
    RandomResizedCrop(16),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    RandAugment(),
    Compose([RandomResizedCrop(16), RandomHorizontalFlip(), RandAugment(1), ColorJitter(0.2)]),
]


@pytest.mark.parametrize("transform", STANDARD, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_depends_on_seed_epoch_and_id_alone(
    transform: BatchTransform, channels: int
) -> None:
    pixels = images(channels)
    data = ArraySet(pixels, torch.zeros(40), augment=transform.to("cpu"), seed=1)
    whole = data.batch([(2, position) for position in range(40)])
    for order in (range(39, -1, -1), range(7, 12), range(3, 4)):
        part = data.batch([(2, position) for position in order])
        assert torch.equal(part.inputs, whole.inputs[list(order)])
    subset = data.subset([9, 4]).batch([(2, 0), (2, 1)])
    assert torch.equal(subset.inputs, whole.inputs[[9, 4]])
    mixed = data.batch([(5, 0), (2, 1)])
    assert torch.equal(mixed.inputs[1], whole.inputs[1])
    assert not torch.equal(whole.inputs, data.batch([(3, i) for i in range(40)]).inputs)
    assert torch.equal(pixels, images(channels))  # nothing is changed in place


def test_half_of_the_images_are_mirrored() -> None:
    pixels = images(count=400)
    changed = RandomHorizontalFlip()(pixels, draws(400))
    is_mirrored = (changed == pixels.flip(-1)).flatten(1).all(1)
    assert torch.equal(changed[~is_mirrored], pixels[~is_mirrored])
    assert 160 < is_mirrored.sum() < 240
    assert torch.equal(RandomHorizontalFlip(p=1)(pixels, draws(400)), pixels.flip(-1))


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    ("shape", "size", "padding"), [((3, 32, 32), 32, 4), ((1, 9, 12), 8, 0), ((2, 8, 11), 8, 0)]
)
def test_a_padded_crop_is_one_of_torchvision_and_every_place_occurs(
    shape: tuple[int, int, int], size: int, padding: int, flip: bool
) -> None:
    pixels = images(*shape, count=1000)
    crops = PaddedCrop(size, padding, flip)(pixels, draws(1000))
    found: dict[tuple[int, int, bool], int] = {}
    padded = functional.pad(pixels, [padding])
    windows = padded.unfold(2, size, 1).unfold(3, size, 1).movedim((2, 3), (1, 2))
    for image, crop in zip(windows, crops, strict=True):
        for mirrored in (False, True):
            same = (image == (crop.flip(-1) if mirrored else crop)).flatten(2).all(2)
            if same.any():
                top, left = same.nonzero()[0].tolist()
                key = (top, left, mirrored)
                found[key] = found.get(key, 0) + 1
                break
        else:
            raise AssertionError("a crop is no part of its image")
    rooms = [side + 2 * padding - size + 1 for side in shape[1:]]
    num_places = rooms[0] * rooms[1] * (2 if flip else 1)
    assert len(found) == num_places
    assert max(found.values()) < 1000 / num_places + 6 * math.sqrt(1000 / num_places)


def test_a_crop_larger_than_its_image_is_refused() -> None:
    with pytest.raises(UserError, match="24×24 pixels, padded by 1, are smaller than a crop of 32"):
        PaddedCrop(32, padding=1)(images(), draws())


@pytest.mark.parametrize(("height", "width"), [(24, 24), (40, 30), (17, 50), (8, 9)])
def test_resized_crops_are_those_of_torchvision(height: int, width: int) -> None:
    pixels = images(height=height, width=width)
    transform = RandomResizedCrop(16)
    whole = transform(pixels, draws())
    boxes = transform.boxes([(height, width)] * 40, draws())
    together = transform._cut_together(pixels, boxes)  # as on an accelerator
    for image, box, crop, other in zip(pixels, boxes, whole, together, strict=True):
        assert torch.equal(crop, functional.resized_crop(image, *box, [16, 16], antialias=True))
        exact = functional.resized_crop(image.float(), *box, [16, 16], antialias=True)
        assert (other.float() - exact).abs().max() <= 0.501
    real = transform._cut_together(pixels.float() / 255, boxes)
    torch.testing.assert_close(real, transform(pixels.float() / 255, draws()), atol=1e-5, rtol=0)


def test_boxes_have_the_shares_and_ratios_of_torchvision() -> None:
    sides = (200, 300)
    boxes = torch.tensor(RandomResizedCrop(16).boxes([sides] * 4000, draws(4000)))
    torch.manual_seed(0)
    image = torch.empty(1, *sides)
    official = [v2.RandomResizedCrop(16).make_params([image]) for _ in range(4000)]
    names = ("top", "left", "height", "width")
    expected = torch.tensor([[params[name] for name in names] for params in official])
    for own, theirs in (
        (boxes.double(), expected.double()),
        (
            boxes[:, 2:].prod(1, keepdim=True).double(),
            expected[:, 2:].prod(1, keepdim=True).double(),
        ),
    ):
        standard_error = theirs.std(0) / math.sqrt(2000)
        assert ((own.mean(0) - theirs.mean(0)).abs() < 4 * standard_error).all()
    assert (boxes[:, 0] + boxes[:, 2] <= 200).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 300).all()


def test_a_box_that_never_fits_is_the_largest_in_the_middle() -> None:
    boxes = RandomResizedCrop(16, scale=(1, 1)).boxes([(10, 100), (100, 10), (10, 10)], draws(3))
    assert boxes[:2] == [(0, 43, 10, 13), (43, 0, 13, 10)]
    assert RandomResizedCrop(4).boxes([(1, 1)], draws(1)) == [(0, 0, 1, 1)]


@pytest.mark.parametrize(
    ("name", "adjust"),
    [
        ("brightness", functional.adjust_brightness),
        ("contrast", functional.adjust_contrast),
        ("saturation", functional.adjust_saturation),
        ("hue", functional.adjust_hue),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_one_color_change_is_that_of_torchvision(name: str, adjust: object, channels: int) -> None:
    pixels = images(channels).float() / 255
    pixels[0] = 0.5  # gray has no hue
    changed = ColorJitter(**{name: 0.5})(pixels, draws())
    column = ("brightness", "contrast", "saturation", "hue").index(name)
    values = 0.5 + draws().uniform(8)[:, column]
    values = values - 1 if name == "hue" else values
    for image, value, result in zip(pixels, values.tolist(), changed, strict=True):
        assert callable(adjust)
        torch.testing.assert_close(result, adjust(image, value), atol=2e-5, rtol=0)


def test_color_changes_come_in_every_order() -> None:
    pixels = images(count=200).float() / 255
    uniform = draws(200).uniform(8)
    changed = ColorJitter(0.4, 0.4, 0.4, 0.1)(pixels, draws(200))
    factors = 0.6 + 0.8 * uniform[:, :3]
    shifts = (2 * uniform[:, 3] - 1) * 0.1
    orders = uniform[:, 4:].argsort(1)
    assert len(orders.unique(dim=0)) == 24
    for image, own, shift, order, result in zip(
        pixels, factors.tolist(), shifts.tolist(), orders.tolist(), changed, strict=True
    ):
        for change in order:
            if change == 3:
                image = functional.adjust_hue(image, shift)
            else:
                adjust = (
                    functional.adjust_brightness,
                    functional.adjust_contrast,
                    functional.adjust_saturation,
                )[change]
                image = adjust(image, own[change])
        torch.testing.assert_close(result, image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_has_the_operations_of_torchvision(magnitude: int) -> None:
    pixels = images(count=300)
    changed = RandAugment(num_ops=1, magnitude=magnitude)(pixels, draws(300))
    uniform = draws(300).within(0).uniform(2)
    official = v2.RandAugment(magnitude=magnitude)
    names = {"autocontrast": "AutoContrast"}
    seen = set()
    for image, (first, second), result in zip(pixels, uniform.tolist(), changed, strict=True):
        name = OPERATIONS[int(first * 14)]
        official_name = names.get(name, "".join(word.capitalize() for word in name.split("_")))
        magnitudes, signed = official._AUGMENTATION_SPACE[official_name]
        assert signed == (name in SIGNED)
        strengths = magnitudes(31, 24, 24)
        strength = 0.0 if strengths is None else float(strengths[magnitude])
        if signed and second < 0.5:
            strength = -strength
        expected = official._apply_image_or_video_transform(
            image, official_name, strength, official.interpolation, official._fill
        )
        # Sums of three channels are rounded otherwise for one image than for several.
        assert (result.int() - expected.int()).abs().max() <= 1, name
        seen.add(name)
    assert seen == set(OPERATIONS)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"hue up to 0\.5, got 0\.0, 0\.0, 0\.0, 0\.6"):
        ColorJitter(hue=0.6)
    with pytest.raises(UserError, match="magnitude of 0 to 30, got 2 and 31"):
        RandAugment(magnitude=31)
    with pytest.raises(UserError, match="RandAugment takes uint8 images"):
        RandAugment()(torch.zeros(1, 3, 8, 8), draws(1))
    with pytest.raises(UserError, match=r"got RandomCrop; compose those of torchvision by"):
        Compose([v2.RandomCrop(8)])  # type: ignore[list-item]

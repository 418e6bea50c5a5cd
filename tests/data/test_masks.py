from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.masks import write_cityscapes, write_voc_masks
from tutelage import UserError
from tutelage.data import Cityscapes, Resized, VOCSegmentation

COUNTS = {"train": 6, "val": 3}
NAMES = ["background", "brick", "leaf"]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc_masks(tmp_path, COUNTS)


def test_voc_is_read_as_classes_with_outlines_ignored(voc: Path) -> None:
    train, validation, test = VOCSegmentation(str(voc), augment=False).raw_splits()
    assert (len(train), validation, test and len(test)) == (6, None, 3)
    batch = train[1]
    image, mask = batch.inputs[0], batch.labels[0]
    assert (image.shape, image.dtype, batch.ids.tolist()) == ((3, 56, 64), torch.float32, [1])
    assert (mask.shape, mask.dtype) == ((56, 64), torch.int64)
    assert type(mask) is torch.Tensor
    assert mask.unique().tolist() == [-100, 0, 1, 2]
    red = image[:, mask == 1].mean(1) * 255
    assert (
        red - torch.tensor([200.0, 80, 40])
    ).abs().max() < 15  # the mask lies where the brick is


def test_images_of_different_sizes_are_filled_up_with_what_is_ignored(voc: Path) -> None:
    train = VOCSegmentation(str(voc)).raw_splits()[0]
    batch = train.batch([(0, 0), (0, 1)])
    images, masks = batch.inputs, batch.labels
    assert (images.shape, masks.shape, batch.ids.tolist()) == ((2, 3, 56, 64), (2, 56, 64), [0, 1])
    assert (images[0, :, 48:] == 0).all()
    assert (masks[0, 48:] == -100).all()
    assert torch.equal(images[0, :, :48], train[0].inputs[0])
    assert torch.equal(masks[0, :48], train[0].labels[0])


@pytest.mark.parametrize("place", ["VOC2012", "."])
def test_voc_is_found_where_it_lies(place: str, voc: Path) -> None:
    assert len(VOCSegmentation(str(voc / place)).raw_splits()[0]) == 6


def test_voc_is_found_as_its_archive_unpacks(tmp_path: Path) -> None:
    write_voc_masks(tmp_path / "VOCdevkit", COUNTS)
    assert VOCSegmentation(str(tmp_path)).classes[-1] == "tvmonitor"
    assert len(VOCSegmentation(str(tmp_path)).raw_splits()[0]) == 6


def test_the_splits_are_disjoint_and_augmented_alike_by_seed_and_epoch(voc: Path) -> None:
    splits = VOCSegmentation(str(voc), crop=40, validation=0.4).splits(seed=3)
    train = splits["train"]
    assert not set(train.ids.tolist()) & set(splits["validation"].ids.tolist())
    first, again, second = train[1, 0], train[1, 0], train[2, 0]
    assert (first.inputs.shape, first.labels.shape) == ((1, 3, 40, 40), (1, 40, 40))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.inputs, second.inputs)


def test_augmentation_moves_the_mask_with_the_image_and_ignores_what_it_adds(voc: Path) -> None:
    data = VOCSegmentation(str(voc), crop=320, validation=0.4)
    batch = data.splits()["train"][0, 0]
    image, mask = batch.inputs[0], batch.labels[0]
    if (mask == 1).sum() > 500:
        red = image[:, mask == 1].mean(1) * 255
        assert (red - torch.tensor([200.0, 80, 40])).abs().max() < 25
    data = VOCSegmentation(str(voc), crop=2000, validation=0.4)
    batch = data.splits()["train"][0, 0]
    image, mask = batch.inputs[0], batch.labels[0]
    assert (mask[(image == 0).all(0)] == -100).float().mean() > 0.99  # filled up


def test_cityscapes_has_19_classes(tmp_path: Path) -> None:
    data = Cityscapes(str(write_cityscapes(tmp_path, COUNTS)), crop=(16, 32), validation=0.4)
    assert len(data.classes) == 19
    train, _, test = data.raw_splits()
    assert test is not None
    assert (len(train), len(test)) == (6, 3)
    assert train[0].labels.unique().tolist() == [-100, 0, 13, 18]  # void, road, car, bicycle
    assert data.splits()["train"][0, 0].labels.shape == (1, 16, 32)


def broken(voc: Path, what: str) -> Path:
    """Break the second item, and return the file that the message should name."""
    place = voc / "VOC2012"
    image, mask = (
        place / name
        for name in ("JPEGImages/2007_train000001.jpg", "SegmentationClass/2007_train000001.png")
    )
    if what == "size":
        Image.open(mask).crop((0, 0, 30, 20)).save(mask)
    elif what == "jpeg":
        image.write_bytes(image.read_bytes()[:200])
        return image
    elif what == "png":
        mask.write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    elif what == "missing mask":
        mask.unlink()
    elif what == "missing image":
        image.unlink()
        return place / "ImageSets/Segmentation/train.txt"
    elif what == "colors":
        Image.open(mask).convert("RGB").save(mask)
    else:
        Image.open(mask).point(lambda value: 77 if value == 2 else value).save(mask)
    return mask


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("size", "is 30×20 pixels, but its image .* is 64×56"),
        ("jpeg", "cannot be decoded"),
        ("png", "cannot be decoded"),
        ("missing mask", "has no mask: .* is missing"),
        ("missing image", "names 2007_train000001, but .* is missing"),
        ("colors", "mode RGB"),
        ("class", r"has the class 77 at x=\d+, y=\d+, but there are 3"),
    ],
)
def test_what_is_wrong_is_told_with_its_file(what: str, message: str, voc: Path) -> None:
    named = broken(voc, what)
    with pytest.raises(UserError, match=message) as caught:
        VOCSegmentation(str(voc), names=NAMES).raw_splits()[0][1]
    assert str(named) in str(caught.value)


def test_a_missing_list_is_told_with_those_that_are_there(voc: Path) -> None:
    with pytest.raises(UserError, match=r"trainaug.txt, is missing; there are: train, val"):
        VOCSegmentation(str(voc), train="trainaug").raw_splits()


def test_an_empty_list_is_refused_and_not_replaced(voc: Path) -> None:
    (voc / "VOC2012/ImageSets/Segmentation/val.txt").write_text("")
    with pytest.raises(UserError, match="the test part of VOCSegmentation is empty"):
        VOCSegmentation(str(voc), validation=0.4).splits()
    with pytest.raises(UserError, match="the validation part of VOCSegmentation is empty"):
        VOCSegmentation(str(voc), val="val", test=None).splits()
    resized = Resized(VOCSegmentation(str(voc), val="val", test=None))
    with pytest.raises(UserError, match="the validation part of Resized is empty"):
        resized.splits()


def test_a_wrong_folder_is_told_with_how_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no JPEGImages; unpack VOC2012"):
        VOCSegmentation(str(tmp_path)).raw_splits()
    with pytest.raises(UserError, match="unpack leftImg8bit"):
        Cityscapes(str(tmp_path)).raw_splits()
    write_cityscapes(tmp_path, {"train": 2, "val": 1})
    next((tmp_path / "gtFine/train").rglob("*.png")).unlink()
    with pytest.raises(UserError, match="has no mask"):
        Cityscapes(str(tmp_path)).raw_splits()

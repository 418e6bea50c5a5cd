from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_files import write_png
from tests.helpers.masks import write_cityscapes, write_voc_masks
from tutelage import UserError
from tutelage.data import Cityscapes, MaskFormat, VOCSegmentation

COUNTS = {"train": 6, "val": 3}
NAMES = ["background", "brick", "leaf"]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_voc_masks(tmp_path, COUNTS)


def test_voc_is_read_as_classes_with_outlines_ignored(voc: Path) -> None:
    train, validation, test = VOCSegmentation(str(voc), names=NAMES, augment=False).raw_splits()
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
    train = VOCSegmentation(str(voc), names=NAMES).raw_splits()[0]
    batch = train.batch([(0, 0), (0, 1)])
    images, masks = batch.inputs, batch.labels
    assert (images.shape, masks.shape, batch.ids.tolist()) == ((2, 3, 56, 64), (2, 56, 64), [0, 1])
    assert (images[0, :, 48:] == 0).all()
    assert (masks[0, 48:] == -100).all()
    assert torch.equal(images[0, :, :48], train[0].inputs[0])
    assert torch.equal(masks[0, :48], train[0].labels[0])


def test_the_range_that_training_images_are_resized_to_is_a_setting(voc: Path) -> None:
    data = VOCSegmentation(str(voc), names=NAMES, crop=32, shorter_side=(32, 32))
    train = data.raw_splits()[0]
    small = train.subset_with(torch.tensor([1]), data.standard_augmentation(), seed=0)[0]
    assert small.inputs.shape == (1, 3, 32, 32)
    # The shorter side of 56 pixels became 32: all classes of the picture still fit into the crop.
    assert set(small.labels.unique().tolist()) >= {0, 1, 2}
    for wrong in [(64, 32), (0, 32)]:
        data = VOCSegmentation(str(voc), names=NAMES, shorter_side=wrong)
        with pytest.raises(UserError, match=r"data\.shorter_side is the least and the greatest"):
            data.standard_augmentation()


@pytest.mark.parametrize("place", ["VOC2012", "."])
def test_voc_is_found_where_it_lies(place: str, voc: Path) -> None:
    assert len(VOCSegmentation(str(voc / place), names=NAMES).raw_splits()[0]) == 6


def test_voc_is_found_as_its_archive_unpacks(tmp_path: Path) -> None:
    write_voc_masks(tmp_path / "VOCdevkit", COUNTS)
    assert VOCSegmentation(str(tmp_path)).classes[-1] == "tvmonitor"
    assert len(VOCSegmentation(str(tmp_path), names=NAMES).raw_splits()[0]) == 6


def test_the_splits_are_disjoint_and_augmented_alike_by_seed_and_epoch(voc: Path) -> None:
    splits = VOCSegmentation(str(voc), names=NAMES, crop=40, validation=0.4).splits(seed=3)
    train = splits["train"]
    assert not set(train.ids.tolist()) & set(splits["validation"].ids.tolist())
    first, again, second = train[1, 0], train[1, 0], train[2, 0]
    assert (first.inputs.shape, first.labels.shape) == ((1, 3, 40, 40), (1, 40, 40))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.inputs, second.inputs)


def test_augmentation_moves_the_mask_with_the_image_and_ignores_what_it_adds(voc: Path) -> None:
    data = VOCSegmentation(str(voc), names=NAMES, crop=320, validation=0.4)
    batch = data.splits()["train"][0, 0]
    image, mask = batch.inputs[0], batch.labels[0]
    if (mask == 1).sum() > 500:
        red = image[:, mask == 1].mean(1) * 255
        assert (red - torch.tensor([200.0, 80, 40])).abs().max() < 25
    data = VOCSegmentation(str(voc), names=NAMES, crop=2000, validation=0.4)
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
        VOCSegmentation(str(voc), names=NAMES, validation=0.4).splits()
    with pytest.raises(UserError, match="the validation part of VOCSegmentation is empty"):
        VOCSegmentation(str(voc), names=NAMES, val="val", test=None).splits()


def test_a_wrong_folder_is_told_with_how_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no JPEGImages; unpack VOC2012"):
        VOCSegmentation(str(tmp_path)).raw_splits()
    with pytest.raises(UserError, match="unpack leftImg8bit"):
        Cityscapes(str(tmp_path)).raw_splits()
    write_cityscapes(tmp_path, {"train": 2, "val": 1})
    next((tmp_path / "gtFine/train").rglob("*.png")).unlink()
    with pytest.raises(UserError, match="has no mask"):
        Cityscapes(str(tmp_path)).raw_splits()


def rewritten(voc: Path, numbers: dict[int, int], mode: str = "L", part: str = "") -> Path:
    """Change the numbers in the masks, which have no outlines then."""
    for path in (voc / "VOC2012/SegmentationClass").glob(f"2007_{part}*.png"):
        mask = Image.open(path).point(
            lambda value: 0 if value == 255 else numbers.get(value, value)
        )
        mask.putpalette(list(range(256)) * 3)
        Image.fromarray(np.array(mask)).convert(mode).save(path)
    return voc


def test_masks_of_0_and_255_are_refused_with_the_mend(voc: Path) -> None:
    rewritten(voc, {1: 255, 2: 255})
    names = ["background", "thing"]
    with pytest.raises(UserError, match=r"only the class 'background' .* 255.*\{0: 0, 255: 1\}"):
        VOCSegmentation(str(voc), names=names).splits()
    data = VOCSegmentation(str(voc), names=names, values={0: 0, 255: 1}, augment=False)
    parts = data.splits()
    assert parts["train"][0].labels.unique().tolist() == [0, 1]
    assert parts["test"][0].labels.unique().tolist() == [0, 1]


def test_masks_of_0_and_255_in_the_test_part_alone_are_told(voc: Path) -> None:
    rewritten(voc, {2: 1}, part="train")
    rewritten(voc, {1: 255, 2: 255}, part="val")
    with pytest.warns(UserWarning, match=r"val.txt names .*only the class 'background'"):
        VOCSegmentation(str(voc), names=["background", "thing"]).raw_splits()


def test_a_class_that_no_training_mask_holds_is_told(voc: Path) -> None:
    names = [*NAMES, "cloud"]
    with pytest.warns(UserWarning, match=r"hold no pixel of 'cloud'; nothing can be learned"):
        VOCSegmentation(str(voc), names=names).raw_splits()
    rewritten(voc, {2: 1})
    with pytest.warns(UserWarning, match=r"hold no pixel of 'leaf'"):
        VOCSegmentation(str(voc), names=NAMES).raw_splits()


def test_numbers_without_a_meaning_are_refused(voc: Path, tmp_path: Path) -> None:
    rewritten(voc, {2: 3})
    with pytest.raises(UserError, match=r"class 3 at .* data\.values"):
        VOCSegmentation(str(voc), names=NAMES).raw_splits()
    with pytest.raises(UserError, match=r"class 3 at .* the numbers of this data set are 0, 1"):
        VOCSegmentation(str(voc), names=NAMES, values={0: 0, 1: 1, 2: 2}).raw_splits()
    right = VOCSegmentation(str(voc), names=NAMES, values={0: 0, 1: 1, 3: 2}).raw_splits()[0]
    assert right[0].labels.unique().tolist() == [0, 1, 2]
    wrong: list[Any] = [{}, {0: 3}, {-1: 0}, {70000: 0}, {"0": 0}, {0: 0.5}, {True: 0}, [0, 1]]
    for values in wrong:
        with pytest.raises(UserError, match=r"data\.values"):
            VOCSegmentation(str(voc), names=NAMES, values=values).raw_splits()


def test_cityscapes_in_other_numbers_is_refused(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, COUNTS)
    for path in (root / "gtFine/train").rglob("*.png"):
        Image.open(path).point(lambda value: 255 * (value > 0)).save(path)
    with pytest.raises(UserError, match=r"none of the classes and else only pixels without a"):
        Cityscapes(str(root)).raw_splits()
    for path in (root / "gtFine/train").rglob("*.png"):
        Image.open(path).point(lambda value: min(value, 77)).save(path)
    with pytest.raises(UserError, match=r"class 77 at .* data set are 0, 1, .* and 23 more"):
        Cityscapes(str(root)).raw_splits()


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_masks_of_any_depth_hold_the_same_numbers(bits: int, tmp_path: Path) -> None:
    labels = [0, 1, 1, 0] if bits == 1 else [0, 1, 2, 1]
    if bits == 16:
        Image.fromarray(np.array([labels], dtype=np.uint16)).save(tmp_path / "a.png")
    else:
        packed = sum(label << (bits * (3 - i)) for i, label in enumerate(labels))
        packed <<= -4 * bits % 8
        row = np.frombuffer(packed.to_bytes(-(-4 * bits // 8), "big"), dtype=np.uint8)[None]
        write_png(tmp_path / "a.png", row, bits, 0)
    mask = MaskFormat(3).read(tmp_path / "a.png")[0, :4]
    assert mask.tolist() == labels


def test_an_image_is_upright_if_its_mask_is(voc: Path) -> None:
    image = voc / "VOC2012/JPEGImages/2007_train000000.jpg"
    mask = voc / "VOC2012/SegmentationClass/2007_train000000.png"
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(image).save(image, exif=exif)
    with pytest.warns(UserWarning, match="1 images whose EXIF orientation is not applied"):
        train = VOCSegmentation(str(voc), names=NAMES, augment=False).raw_splits()[0]
    assert train[0].inputs.shape[2:] == train[0].labels.shape[1:] == (48, 64)
    Image.open(mask).rotate(-90, expand=True).save(mask)
    train = VOCSegmentation(str(voc), names=NAMES, augment=False).raw_splits()[0]
    assert train[0].inputs.shape[2:] == train[0].labels.shape[1:] == (64, 48)


def test_lists_are_read_in_any_encoding_and_lead_nowhere_else(voc: Path) -> None:
    path = voc / "VOC2012/ImageSets/Segmentation/train.txt"
    names = path.read_text()
    for content in (names.encode("utf-8-sig"), names.encode("utf-16"), names.encode() + b"\r\n"):
        path.write_bytes(content)
        assert len(VOCSegmentation(str(voc), names=NAMES).raw_splits()[0]) == 6
    for name in ("../../secret", "/etc/passwd", "a/../../b", "C:\\x"):
        path.write_text(names + name + "\n")
        with pytest.raises(UserError, match=r"train\.txt names the file .*inside of"):
            VOCSegmentation(str(voc), names=NAMES).raw_splits()
    path.write_text(names + names)
    with pytest.warns(UserWarning, match="6 names that the list has twice"):
        assert len(VOCSegmentation(str(voc), names=NAMES).raw_splits()[0]) == 6


def test_an_image_in_two_parts_is_told(voc: Path) -> None:
    lists = voc / "VOC2012/ImageSets/Segmentation"
    (lists / "val.txt").write_text((lists / "val.txt").read_text() + "2007_train000000\n")
    with pytest.warns(UserWarning, match="train and val of .* 1 images are in both"):
        VOCSegmentation(str(voc), names=NAMES).raw_splits()


def test_endings_are_found_in_any_case(voc: Path) -> None:
    image = voc / "VOC2012/JPEGImages/2007_train000000.jpg"
    image.rename(image.with_suffix(".JPG"))
    mask = voc / "VOC2012/SegmentationClass/2007_train000000.png"
    mask.rename(mask.with_suffix(".PNG"))
    assert len(VOCSegmentation(str(voc), names=NAMES).raw_splits()[0]) == 6


def test_a_mask_that_was_compressed_with_loss_is_refused(voc: Path) -> None:
    path = next((voc / "VOC2012/SegmentationClass").glob("*train*.png"))
    Image.fromarray(np.array(Image.open(path))).save(path, "JPEG")
    with pytest.raises(UserError, match="is a JPEG file, which does not keep numbers as they are"):
        VOCSegmentation(str(voc), names=NAMES).raw_splits()

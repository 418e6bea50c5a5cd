"""Images that are in two parts, or twice in one, are told, whatever they are called."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from tests.helpers.coco import write_coco
from tests.helpers.masks import write_cityscapes, write_voc_masks
from tutelage.data import Cityscapes, Coco, VOCSegmentation
from tutelage.data._overlap import BLOCK, PIECE, SIMPLE, warn_repeated, warn_shared


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_copies_and_links_count_and_equal_sizes_or_middles_do_not(tmp_path: Path) -> None:
    middle = bytes(BLOCK + 3 * PIECE)
    train = [
        write(tmp_path / "train/a", b"a" * 1000),
        write(tmp_path / "train/large", b"1" + middle),
        write(tmp_path / "train/small", b"s" * SIMPLE),
    ]
    link = tmp_path / "val/link"
    other = [
        write(tmp_path / "val/copy", b"a" * 1000),
        write(tmp_path / "val/same_size", b"b" * 1000),
        write(tmp_path / "val/same_middle", b"2" + middle),
        write(tmp_path / "val/large", b"1" + middle),
        write(tmp_path / "val/as_simple", b"s" * SIMPLE),
    ]
    link.symlink_to(train[2])
    with pytest.warns(UserWarning, match="here: 3 images are in both, such as .*val/copy"):
        warn_shared(train, [*other, link], "here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_shared(train, [other[1], other[2], other[4]], "here")
        warn_repeated([*train, other[1], other[2], other[4]], "here")
    with pytest.warns(UserWarning, match="here: 2 images are there more than once, .*train/a,"):
        warn_repeated([*train, *other], "here")


def test_copies_in_masks_of_cityscapes_and_voc_are_told(tmp_path: Path) -> None:
    streets = write_cityscapes(tmp_path / "streets", {"train": 2, "val": 2})
    first = next((streets / "leftImg8bit/train").glob("*/*.png"))
    other = next((streets / "leftImg8bit/val/ulm").glob("*.png"))
    shutil.copyfile(first, other)
    with pytest.warns(UserWarning, match="train and val of .*: 1 images are in both"):
        Cityscapes(str(streets)).raw_splits()
    voc = write_voc_masks(tmp_path / "voc", {"train": 4, "val": 2})
    images = sorted((voc / "VOC2012/JPEGImages").glob("*train*.jpg"))
    shutil.copyfile(images[0], images[2])
    with pytest.warns(UserWarning, match="train of .*: 1 images are there more than once"):
        VOCSegmentation(str(voc), names=["background", "a", "b"]).raw_splits()


def test_one_image_under_two_ids_is_told(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    shutil.copyfile(root / "train2017/a.jpg", root / "train2017/c.jpg")
    annotations = root / "annotations/instances_train2017.json"
    text = annotations.read_text()
    entry = '{"id": 7, "file_name": "a.jpg", "width": 96, "height": 72}'
    assert entry in text
    again = entry.replace('"id": 7', '"id": 8').replace("a.jpg", "c.jpg")
    annotations.write_text(text.replace(entry, f"{entry}, {again}"))
    with pytest.warns(UserWarning, match="train2017 of .*: 1 images are there more than once"):
        Coco(str(root), keep_empty=True).raw_splits()

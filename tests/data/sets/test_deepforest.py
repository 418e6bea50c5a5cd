from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tutelage import UserError
from tutelage.data import DeepForest
from tutelage.data.sets import prepare_deepforest
from tutelage.data.sets._prepare import build_folder, package_folder

installed = pytest.mark.skipif(
    importlib.util.find_spec("deepforest") is None, reason="deepforest is not installed"
)


@installed
def test_tiles_hold_the_hand_made_boxes(tmp_path: Path) -> None:
    data = DeepForest(str(tmp_path), size=256, stride=256, augment=False)
    splits = data.splits()
    again = data.splits()
    assert data.classes == ["background", "tree"]
    held_out = [splits["validation"], splits["test"]]
    assert [len(part) for part in held_out] == [10, 20]  # 5 rows each of 374 and 875 pixels
    boxes = torch.cat([part[i].labels[0]["boxes"] for part in held_out for i in range(len(part))])
    assert 279 <= len(boxes) <= 340  # some are cut in two
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 256
    train = splits["train"]
    counts = [len(train[i].labels[0]["boxes"]) for i in range(len(train))]
    assert all(counts)
    assert sum(counts) > 520
    assert torch.equal(again["train"][3].inputs[0], train[3].inputs[0])
    assert len(list(tmp_path.iterdir())) == 1


@installed
def test_other_tiles_lie_elsewhere_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    assert DeepForest(size=256).folder != DeepForest(size=128).folder
    with pytest.raises(UserError, match="a tile has at least 32 pixels"):
        prepare_deepforest(tmp_path / "a", size=16)


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(
        UserError, match=r"the package no_such_trees is not installed.*pip install it"
    ):
        package_folder("no_such_trees", "pip install it")


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_folder(tmp_path / "a", {}, fail)
    assert not list(tmp_path.iterdir())
    build_folder(tmp_path / "a", {}, lambda folder: (folder / "whole").touch())
    build_folder(tmp_path / "a", {}, fail)  # it is there already
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["prepared.json", "whole"]

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.coco import write_coco
from tests.helpers.commands import write_cifar10
from tutelage import UserError
from tutelage.data import CIFAR10, Coco, Digits, OpenSet, Resized
from tutelage.data.resized import reshaped


def test_images_keep_their_type_and_take_the_channels() -> None:
    gray = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(reshaped(gray, (1, 8, 8)), gray)
    assert torch.equal(reshaped(gray, (3, 8, 8)), gray.expand(4, 3, 8, 8))
    assert reshaped(gray, (1, 28, 28)).dtype == torch.uint8
    assert reshaped(gray.expand(4, 3, 8, 8), (1, 5, 6)).shape == (4, 1, 5, 6)
    with pytest.raises(UserError, match="images of 4 channels cannot join images of 1"):
        reshaped(torch.zeros(4, 4, 8, 8), (1, 8, 8))


def test_every_part_is_resized_and_cut_as_before(tmp_path: Path) -> None:
    data = CIFAR10(str(write_cifar10(tmp_path)))
    small, large = (
        source.splits(num_labels=20, seed=1) for source in (data, Resized(data, size=48))
    )
    for part in ("train", "validation", "test"):
        before, after = small[part], large[part]
        assert torch.equal(before.ids, after.ids)
        assert torch.equal(before.labels, after.labels)
        assert after.batch([(0, 0), (0, 1)]).inputs.shape == (2, 3, 48, 48)
    assert torch.equal(large["test"].image(0), reshaped(small["test"].image(0), (3, 48, 48)))
    train = large["train"]
    assert any(not torch.equal(train[0, i].inputs, train[1, i].inputs) for i in range(20))
    assert Resized(data).classes == data.classes
    assert Resized(data).std == data.std


def test_parts_that_are_cut_stay_cut() -> None:
    parts = Resized(Digits(), size=16, augment=False).splits()
    assert len(parts["train"]) == len(Digits().splits()["train"])
    assert torch.equal(parts["train"][0].inputs, parts["train"][5, 0].inputs)
    with pytest.raises(
        UserError, match=r"data\.size is the side of the images in whole pixels, at least 1, got 0"
    ):
        Resized(Digits(), size=0)


def test_images_with_boxes_would_lose_them(tmp_path: Path) -> None:
    data = Coco(str(write_coco(tmp_path)), val="val2017")
    with pytest.raises(UserError, match="Resized takes images with one label each"):
        Resized(data).splits()
    with pytest.raises(UserError, match="OpenSet takes images with one label each"):
        OpenSet(Digits(), far=data).splits()

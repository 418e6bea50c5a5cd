from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.own_data import write_masks
from tutelage import UserError
from tutelage.data import MaskFolder

NAMES = ["wall", "brick", "stone"]


@pytest.mark.parametrize(
    ("images", "masks"), [("{part}", "{part}annot"), ("images/{part}", "masks/{part}")]
)
@pytest.mark.parametrize("size", [None, (16, 24)])
def test_parts_are_read(
    tmp_path: Path, images: str, masks: str, size: tuple[int, int] | None
) -> None:
    write_masks(tmp_path, images, masks)
    data = MaskFolder(str(tmp_path), NAMES, images, masks, size=size, crop=16)
    parts = data.splits()
    assert [len(part) for part in parts.values()] == [12, 3, 3]
    batch = parts["test"].batch([(0, 0), (0, 1)])
    height, width = size or (32, 48)
    assert batch.inputs.shape == (2, 3, height, width)
    assert batch.labels.shape == (2, height, width)
    assert set(batch.labels.unique().tolist()) <= {-100, 0, 1, 2}
    train = parts["train"].batch([(0, 0), (0, 1)])
    assert train.labels.shape == ((2, *size) if size else (2, 16, 16))


def test_missing_parts_are_cut(tmp_path: Path) -> None:
    write_masks(tmp_path, "images", "masks")
    data = MaskFolder(str(tmp_path), NAMES, "images", "masks", val=None, test=None)
    assert [len(part) for part in data.splits().values()] == [13, 1, 4]
    with pytest.raises(UserError, match=r"set data.val and data.test to null"):
        MaskFolder(str(tmp_path), NAMES, "images", "masks")


def test_pixels_belong_to_their_image(tmp_path: Path) -> None:
    write_masks(tmp_path)
    part = MaskFolder(str(tmp_path), NAMES).splits()["validation"]
    batch = part.batch([(0, 1)])
    number = 12 + 1  # the second image after those for training
    with Image.open(tmp_path / "valannot" / f"{number}.png") as file:
        mask = torch.from_numpy(np.array(file)).long()
    expected = torch.where(mask == 255, -100, mask)
    assert torch.equal(batch.labels[0], expected)


def test_masks_without_an_image_are_counted(tmp_path: Path) -> None:
    write_masks(tmp_path)
    Image.new("L", (48, 32)).save(tmp_path / "trainannot" / "more.png")
    with pytest.warns(UserWarning, match="1 masks of train without an image"):
        MaskFolder(str(tmp_path), NAMES).splits()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    write_masks(tmp_path)
    with pytest.raises(UserError, match=r"name the part, \{part\}, in both or in neither"):
        MaskFolder(str(tmp_path), NAMES, "images", "{part}")
    with pytest.raises(UserError, match="are the names of the classes"):
        MaskFolder(str(tmp_path), [])
    with pytest.raises(UserError, match="has the class 2"):
        MaskFolder(str(tmp_path), NAMES[:2]).splits()
    (tmp_path / "trainannot" / "3.png").unlink()
    with pytest.raises(UserError, match=r"3\.png has no mask"):
        MaskFolder(str(tmp_path), NAMES).splits()
    Image.new("RGB", (48, 32)).save(tmp_path / "train" / "4.jpg")
    with pytest.raises(UserError, match="have one name"):
        MaskFolder(str(tmp_path), NAMES).splits()
    with pytest.raises(UserError, match="holds no images"):
        MaskFolder(str(tmp_path), NAMES, train="training").splits()

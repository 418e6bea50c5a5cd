"""Masks as pictures: which pixels are colored, outlined and named, and how far two agree."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.segmentation import mean_iou

from tutelage import UserError
from tutelage.drawing.masks import CLASS_ALPHA, NO_CLASS, OUTLINE_ALPHA, class_color
from tutelage.report.masks import class_labels, mask_agreement, mask_picture, read_mask

NAMES = ["background", "cat", "dog"]


def pixels(uri: str) -> np.ndarray:
    with Image.open(
        io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))
    ) as picture:
        return np.asarray(picture.convert("RGBA"))


def test_classes_are_colored_and_the_background_is_clear() -> None:
    mask = np.zeros((6, 6), np.uint8)
    mask[3:, :] = 2
    mask[0, 0] = NO_CLASS
    drawn = pixels(mask_picture(mask, NAMES))
    assert drawn[1, 4, 3] == 0
    assert drawn[5, 5].tolist() == [*bytes.fromhex(class_color(2)[1:]), CLASS_ALPHA]
    assert drawn[0, 0].tolist() == [128, 128, 128, OUTLINE_ALPHA]  # no class, at an edge
    truth = np.zeros((6, 6), np.uint8)
    truth[:, 3:] = 1
    outlined = pixels(mask_picture(mask, NAMES, truth))
    assert (outlined[:, 2] == [255, 255, 255, OUTLINE_ALPHA]).all()
    across = pixels(mask_picture(mask, NAMES, truth.T))
    assert (across[2] == [255, 255, 255, OUTLINE_ALPHA]).all()
    assert outlined[5, 5].tolist() == [*bytes.fromhex(class_color(2)[1:]), CLASS_ALPHA]


def test_twenty_classes_have_colors_of_their_own() -> None:
    assert len({class_color(index) for index in range(1, 22)}) == 21


def test_a_name_stands_on_its_class() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, :3] = mask[:, 17:] = 1  # the middle of its pixels is none of them
    mask[10, 10] = 2  # too small to be named
    ((name, x, y, share),) = class_labels(mask, NAMES)
    assert name == "cat"
    assert mask[int(y), int(x)] == 1
    assert share == 0.3
    assert class_labels(mask, ["a"])[-1][0] == "class 1"


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_that_of_torchmetrics(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth, seen = torch.randint(3, (2, 12, 12), generator=generator)
    found = mask_agreement(truth.byte().numpy(), seen.byte().numpy())
    expected = mean_iou(seen[None], truth[None], num_classes=3, input_format="index")
    assert found == pytest.approx((expected.item(), (truth == seen).float().mean().item()))


def test_where_nothing_is_true_there_is_no_agreement() -> None:
    assert mask_agreement(np.full((2, 2), NO_CLASS, np.uint8), np.zeros((2, 2), np.uint8)) is None


def test_a_mask_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    for name in ("a.png", "b.png"):
        with pytest.raises(UserError, match=name):
            read_mask(tmp_path / name)

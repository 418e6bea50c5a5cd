"""What a data set of images says about the networks' inputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.coco import write_coco
from tests.helpers.commands import write_image_folder
from tutelage import UserError
from tutelage.core.normalization import normalization
from tutelage.data import Coco, Digits, ImageFolder


def test_networks_get_the_statistics_of_the_data_or_their_own() -> None:
    images = torch.rand(2, 1, 8, 8)
    data = Digits()
    network = data.normalize(nn.Identity())
    assert torch.equal(network(images), (images - 0.306) / 0.376)
    assert normalization(data.normalize(nn.Identity(), [0.5], [0.25])) == ([0.5], [0.25])
    assert normalization(data.normalize(nn.Identity(), std=[0.25])) == ([0.306], [0.25])


def test_detectors_normalize_by_themselves(tmp_path: Path) -> None:
    data = Coco(str(write_coco(tmp_path)))
    network = data.normalize(nn.Identity())
    assert normalization(network) is None
    statistics = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
    assert normalization(data.normalize(nn.Identity(), *statistics)) == statistics
    for mean, std, missing in ((statistics[0], None, "std"), (None, statistics[1], "mean")):
        with pytest.raises(UserError, match=f"no {missing}, and Coco has none either; give both"):
            data.normalize(nn.Identity(), mean, std)
    assert data.input_info(network) == {
        "mean": None,
        "std": None,
        "classes": ["background", "person", "toothbrush"],
        "inputs": "images in [0, 1]",
    }


def test_the_inputs_of_a_network_are_described() -> None:
    data = Digits()
    info = data.input_info(data.normalize(nn.Identity()))
    assert list(info) == ["mean", "std", "classes", "inputs"]
    assert info == {
        "mean": [0.306],
        "std": [0.376],
        "classes": [str(digit) for digit in range(10)],
        "inputs": "images in [0, 1]; subtract mean and divide by std",
    }


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    data = Digits()
    data.validation = share
    with pytest.raises(UserError, match=r"data\.validation is a share between 0 and 1, got"):
        data.splits()


def test_an_empty_part_is_refused() -> None:
    data = Digits()
    data.validation = 0.0005
    with pytest.raises(
        UserError,
        match=r"the validation part of Digits is empty; it is a share of the training "
        r"images: add some, or raise data\.validation",
    ):
        data.splits()


def test_a_part_that_lacks_a_class_is_told(tmp_path: Path) -> None:
    data = ImageFolder(str(write_image_folder(tmp_path, count=2)), size=8)
    assert data.remarks(data.splits()) == []
    shutil.rmtree(tmp_path / "val/class1")
    (remark,) = data.remarks(data.splits())
    assert "the validation part of ImageFolder has no image of 1 of 3 classes" in remark
    assert "('class1')" in remark


def test_classes_that_are_never_trained_are_said(tmp_path: Path) -> None:
    data = ImageFolder(str(write_image_folder(tmp_path, count=2)), size=8)
    parts = dict(data.splits())
    one_class = (parts["train"].labels == 2).nonzero().flatten()
    parts["train"] = parts["train"].subset_with(one_class, None, 0)
    (remark,) = data.remarks(parts)
    assert "the training part of ImageFolder has no image of 2 of 3 classes" in remark
    assert "('class0', 'class1'), so the student cannot learn them" in remark

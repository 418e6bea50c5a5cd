from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.own_data import COLORS, add_file, write_shards
from tutelage import UserError
from tutelage.data import TarImages, collate
from tutelage.engine.loader import EpochSampler


@pytest.mark.parametrize("ending", ["cls", "json"])
def test_images_and_labels_of_all_shards_are_read(tmp_path: Path, ending: str) -> None:
    write_shards(tmp_path, ending=ending)
    data = TarImages(str(tmp_path), names=list(COLORS), size=16)
    parts = data.splits()
    assert [len(part) for part in parts.values()] == [42, 6, 12]
    batch = parts["test"].batch([(0, position) for position in range(12)])
    assert batch.inputs.shape == (12, 3, 16, 16)
    assert torch.equal(batch.inputs.mean((2, 3)).argmax(1), 2 - batch.labels)
    assert torch.equal(batch.ids % 3, batch.labels)
    assert TarImages(str(tmp_path)).classes == ["0", "1", "2"]


def test_an_interrupted_epoch_goes_on_with_any_number_of_workers(tmp_path: Path) -> None:
    write_shards(tmp_path)
    train = TarImages(str(tmp_path), size=16).splits(seed=3)["train"]

    def batches(workers: int, start: int) -> list[torch.Tensor]:
        sampler = EpochSampler.over(train, 8, 3, rank=0, world=1)
        sampler.epoch = 2
        sampler.start = start
        loader = DataLoader(train, batch_sampler=sampler, num_workers=workers, collate_fn=collate)
        return [batch.inputs for batch in loader]

    whole = batches(0, 0)
    rest = batches(2, 2)
    assert len(whole) == len(rest) + 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    write_shards(tmp_path, count=10)
    with pytest.raises(UserError, match=r"holds no file val\*\.tar, which data\.val names"):
        TarImages(str(tmp_path), val="val*.tar").splits()
    with pytest.raises(UserError, match="the label '2', which is none of 2 classes"):
        TarImages(str(tmp_path), names=["a", "b"]).splits()
    with pytest.raises(UserError, match="download them first"):
        TarImages("https://example.org/shards")
    with tarfile.open(tmp_path / "train-9.tar.gz", "w:gz") as file:
        add_file(file, "1.png", b"x")
    with pytest.raises(UserError, match="uncompressed tar file"):
        TarImages(str(tmp_path), train="train-9*").splits()
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        add_file(file, "1.png", b"x")
    with pytest.raises(UserError, match="has no label"):
        TarImages(str(tmp_path), train="bad.tar").splits()
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        add_file(file, "1.png", b"x")
        add_file(file, "1.cls", b"0")
    with pytest.raises(UserError, match=r"1\.png in .*bad\.tar cannot be decoded"):
        TarImages(str(tmp_path), train="bad.tar").splits()


def test_samples_without_an_image_are_counted(tmp_path: Path) -> None:
    write_shards(tmp_path)
    with tarfile.open(tmp_path / "train-9999.tar", "w") as file:
        add_file(file, "1.cls", b"0")
        add_file(file, "2.cls", b"1")
    with pytest.warns(UserWarning, match="2 samples without an image"):
        TarImages(str(tmp_path)).splits()

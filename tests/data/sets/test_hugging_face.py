from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.own_data import COLORS, write_image, write_tree
from tutelage import UserError
from tutelage.data import HuggingFaceImages

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `datasets` write below the test's folder, and never look at the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def rows(root: Path, count: int) -> dict[str, list[object]]:
    names = list(COLORS)
    paths = [write_image(root / f"{n}.png", COLORS[names[n % 3]], n) for n in range(count)]
    return {"image": [str(path) for path in paths], "label": [n % 3 for n in range(count)]}


def made(root: Path, count: int) -> object:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(COLORS))}
    )
    return datasets.Dataset.from_dict(rows(root, count), features=features)


def check_colors(part: object) -> None:
    batch = part.batch([(0, position) for position in range(len(part))])  # type: ignore[attr-defined, arg-type]
    assert torch.equal(batch.inputs.mean((2, 3)).argmax(1), 2 - batch.labels)


def test_a_saved_folder_is_read(tmp_path: Path) -> None:
    made(tmp_path / "png", 40).save_to_disk(tmp_path / "saved")  # type: ignore[attr-defined]
    data = HuggingFaceImages(str(tmp_path / "saved"), size=16)
    parts = data.splits()
    assert data.classes == list(COLORS)
    assert sum(map(len, parts.values())) == 40
    check_colors(parts["test"])


def test_parquet_files_with_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, count in (("train", 24), ("test", 9)):
        table = made(tmp_path / split, count)
        table.to_parquet(tmp_path / "data" / f"{split}.parquet")  # type: ignore[attr-defined]
    data = HuggingFaceImages(str(tmp_path / "data"), size=16)
    parts = data.splits()
    assert [len(part) for part in parts.values()] == [21, 3, 9]
    check_colors(parts["test"])


def test_an_image_folder_is_read(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", {"train": 8, "test": 3})
    data = HuggingFaceImages(str(tmp_path / "tree"), size=16)
    parts = data.splits()
    assert data.classes == ["blue", "green", "red"]
    assert len(parts["test"]) == 9
    check_colors(parts["test"])


def test_lists_of_labels_are_several_labels(tmp_path: Path) -> None:
    table = rows(tmp_path / "png", 30)
    table["tags"] = [["cat"] if n % 2 else ["cat", "dog"] for n in range(30)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.Value("int64"),
            "tags": datasets.Sequence(datasets.Value("string")),
        }
    )
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    data = HuggingFaceImages(str(tmp_path / "saved"), label="tags")
    part = data.splits()["train"]
    assert data.classes == ["cat", "dog"]
    expected = torch.stack([torch.ones(len(part)), (part.ids % 2 == 0).float()], 1)
    assert torch.equal(part.labels, expected)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    made(tmp_path / "png", 12).save_to_disk(tmp_path / "saved")  # type: ignore[attr-defined]
    place = str(tmp_path / "saved")
    with pytest.raises(UserError, match=r"no split 'trian', which data.train names; did you mean"):
        HuggingFaceImages(place, train="trian").splits()
    with pytest.raises(
        UserError, match=r"no column 'lable', which data\.label names; did you mean"
    ):
        HuggingFaceImages(place, label="lable").splits()
    with pytest.raises(UserError, match=r"and no images; set data\.image"):
        HuggingFaceImages(place, image="label").splits()
    with pytest.raises(UserError, match=r"cannot be loaded by datasets .* without a network"):
        HuggingFaceImages("nobody/such-data-set").splits()


def test_gray_images_are_three_channels(tmp_path: Path) -> None:
    paths = []
    for number in range(12):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("L", (10, 12), 20 * number).save(paths[-1])
    table = {"image": paths, "label": [str(n % 2) for n in range(12)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(table, features=features).save_to_disk(tmp_path / "saved")
    part = HuggingFaceImages(str(tmp_path / "saved"), size=8).splits()["test"]
    assert part.batch([(0, 0)]).inputs.shape == (1, 3, 8, 8)

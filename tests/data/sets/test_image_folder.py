from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from tutelage import UserError
from tutelage.data import ImageFolder
from tutelage.data._files import decode_image


def write(
    path: Path, color: tuple[int, ...] | int, mode: str = "RGB", size: tuple[int, int] = (40, 30)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


def tree(root: Path, count: int = 10) -> None:
    for name, color in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        for i in range(count):
            write(root / name / f"{i}.png", color)


def test_one_tree_is_cut_into_parts(tmp_path: Path) -> None:
    tree(tmp_path, 20)
    data = ImageFolder(str(tmp_path), size=16, validation=0.25)
    splits = data.splits()
    assert [len(part) for part in splits.values()] == [24, 8, 8]
    assert data.classes == ["cat", "dog"]
    batch = splits["test"][0]
    assert batch.inputs.shape == (1, 3, 16, 16)
    is_red = torch.allclose(batch.inputs[0, :, 8, 8], torch.tensor([1.0, 0.0, 0.0]), atol=1e-2)
    assert is_red == (int(batch.labels) == 0)
    assert splits["train"][2, 0].inputs.shape == (1, 3, 16, 16)


def test_folders_for_parts_are_used(tmp_path: Path) -> None:
    tree(tmp_path / "train", 10)
    tree(tmp_path / "val", 3)
    tree(tmp_path / "test", 2)
    splits = ImageFolder(str(tmp_path), size=16).splits()
    assert [len(part) for part in splits.values()] == [20, 6, 4]


def test_transparent_and_grey_images_become_rgb(tmp_path: Path) -> None:
    write(tmp_path / "clear.png", (255, 0, 0, 0), "RGBA")
    write(tmp_path / "gray.png", 128, "L")
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    palette.save(tmp_path / "palette.png", transparency=0)
    assert decode_image(tmp_path / "clear.png").unique().tolist() == [255]
    assert decode_image(tmp_path / "gray.png").shape == (3, 30, 40)
    assert decode_image(tmp_path / "palette.png").unique().tolist() == [255]


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "cat" / "._0.png").write_bytes(b"junk")
    (tmp_path / ".cache").mkdir()
    assert len(ImageFolder(str(tmp_path)).raw_splits()[0]) == 20


def test_bad_trees_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        ImageFolder(str(tmp_path / "nowhere")).splits()
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="holds 1 class folders, at least 2 are needed"):
        ImageFolder(str(tmp_path)).splits()
    (tmp_path / "dog").mkdir()
    with pytest.raises(UserError, match=r"cat holds no image \("):
        ImageFolder(str(tmp_path)).splits()
    tree(tmp_path / "data/train")
    tree(tmp_path / "data/val")
    write(tmp_path / "data/val/bird/0.png", (0, 0, 0))
    with pytest.raises(UserError, match="has a class 'bird' that the training part lacks"):
        ImageFolder(str(tmp_path / "data")).splits()


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    tree(tmp_path)
    broken = tmp_path / "cat/0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=r"cat/0\.png cannot be decoded as an image"):
        decode_image(broken)
    broken.write_bytes(b"not an image at all")
    with pytest.raises(UserError, match=r"cat/0\.png cannot be decoded as an image"):
        decode_image(broken)

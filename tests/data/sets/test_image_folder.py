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


def test_folders_for_parts_have_several_names_in_any_case(tmp_path: Path) -> None:
    for number, names in enumerate((("Training", "Testing"), ("TRAIN", "valid"), ("train", "dev"))):
        root = tmp_path / str(number)
        for name in names:
            tree(root / name, 10)
        data = ImageFolder(str(root), size=16)
        assert data.classes == ["cat", "dog"]
        train, validation, test = data.raw_splits()
        held_out = test if names[1] == "Testing" else validation
        assert (len(train), held_out and len(held_out)) == (20, 20)
    tree(tmp_path / "2/validation", 1)
    with pytest.raises(UserError, match="two folders for the validation part, dev and validation"):
        ImageFolder(str(tmp_path / "2")).splits()
    tree(tmp_path / "3/val", 1)
    tree(tmp_path / "3/test", 1)
    with pytest.raises(UserError, match=r"has the parts test, val, but none for training"):
        ImageFolder(str(tmp_path / "3")).splits()


def test_train_can_be_a_class(tmp_path: Path) -> None:
    for name in ("train", "car", "bus"):
        write(tmp_path / name / "0.png", (1, 2, 3))
    assert ImageFolder(str(tmp_path)).classes == ["bus", "car", "train"]


def test_links_are_followed_and_hidden_folders_are_not(tmp_path: Path) -> None:
    tree(tmp_path / "data")
    tree(tmp_path / "store", 3)
    (tmp_path / "data/cat/more").symlink_to(tmp_path / "store/cat")
    (tmp_path / "data/bird").symlink_to(tmp_path / "store/dog")
    write(tmp_path / "data/dog/.ipynb_checkpoints/0.png", (0, 0, 0))
    write(tmp_path / "data/dog/__MACOSX/0.png", (0, 0, 0))
    train = ImageFolder(str(tmp_path / "data")).raw_splits()[0]
    assert train.labels.bincount().tolist() == [3, 13, 10]
    (tmp_path / "data/cat/up").symlink_to(tmp_path / "data/cat")
    with pytest.warns(UserWarning, match="1 links in a circle"):
        assert len(ImageFolder(str(tmp_path / "data")).raw_splits()[0]) == 26


def test_what_is_not_read_is_counted_in_one_warning(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    for name in ("a.txt", "b.txt", "c.npy", "d"):
        (tmp_path / "train/cat" / name).touch()
    write(tmp_path / "train/outside.png", (0, 0, 0))
    (tmp_path / "README").touch()
    tree(tmp_path / "extra", 1)
    with pytest.warns(UserWarning, match="not read of the image folder") as told:
        ImageFolder(str(tmp_path), validation=0.3).splits()
    assert len(told) == 1
    for part in ("2 files .txt", "1 files .npy", "1 files without ending", "1 folders (extra)"):
        assert part in str(told[0].message)
    assert "2 files outside of class folders" in str(told[0].message)


@pytest.mark.parametrize("ending", ["pgm", "gif", "tif", "webp", "bmp", "JPG", "jpeg", "ppm"])
def test_every_ending_that_torchvision_reads_is_read(ending: str, tmp_path: Path) -> None:
    tree(tmp_path)
    write(tmp_path / "cat" / f"more.{ending}", 7, "L")
    assert len(ImageFolder(str(tmp_path)).raw_splits()[0]) == 21


def test_a_link_to_an_image_of_another_part_is_told(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    tree(tmp_path / "test", 1)
    (tmp_path / "test/cat/more.png").symlink_to(tmp_path / "train/cat/3.png")
    with pytest.warns(UserWarning, match="the training and the test part of .* 1 images are in"):
        ImageFolder(str(tmp_path)).raw_splits()

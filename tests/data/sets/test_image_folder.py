from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tutelage import UserError
from tutelage.data import ImageFolder
from tutelage.data._augmentation import PaddedCrop
from tutelage.data._files import decode_image
from tutelage.data.sets import image_folder


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
    write(tmp_path / "cat" / ".0.png", (9, 9, 9))
    with pytest.warns(UserWarning, match="1 hidden images"):
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
    for name in ("README", "recipe.yaml"):
        (tmp_path / name).touch()
    write(tmp_path / "beside.png", (0, 0, 0))
    write(tmp_path / "run/pictures/0.png", (0, 0, 0))
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


def noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (16, 16, 3), generator=generator, dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(path)


def test_copies_of_images_in_another_part_or_class_are_told(tmp_path: Path) -> None:
    for number in range(20):
        noise(tmp_path / "train" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    noise(tmp_path / "test/cat/renamed.png", 4)
    noise(tmp_path / "test/dog/other.png", 21)
    with pytest.warns(UserWarning, match="the training and the test part of .* 1 images are in"):
        ImageFolder(str(tmp_path)).raw_splits()
    (tmp_path / "train/bird").symlink_to(tmp_path / "train/cat")
    (tmp_path / "test/cat/renamed.png").unlink()
    with pytest.warns(UserWarning, match="train: 10 images are there more than once"):
        ImageFolder(str(tmp_path)).raw_splits()


@pytest.mark.parametrize(
    "names",
    [("train_set", "test_set"), ("seg_train", "seg_test"), ("TrainImages", "testset", "notes")],
)
def test_other_names_of_parts_are_not_taken_for_classes(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    for name in names[:2]:
        tree(tmp_path / name, 2)
    for name in names[2:]:
        write(tmp_path / name / "0.png", 3)
    with pytest.raises(UserError, match=r"folders of the same names \(cat, dog\), .* name them"):
        ImageFolder(str(tmp_path)).splits()


def test_folders_of_the_same_names_in_all_classes_are_told(tmp_path: Path) -> None:
    for name in ("fold1", "fold2"):
        tree(tmp_path / name)
    with pytest.warns(UserWarning, match="folders fold1, fold2 are taken for classes"):
        splits = ImageFolder(str(tmp_path)).splits()
    assert len(splits["train"]) == 28


def test_a_part_without_classes_is_refused(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    write(tmp_path / "test/0.png", 3)
    with pytest.raises(UserError, match="test has no folder of a class with images in it; sort"):
        ImageFolder(str(tmp_path)).splits()


def test_small_images_are_decoded_once_and_cropped_as_those_of_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, 10)
    data = ImageFolder(str(tmp_path), size=16)
    assert isinstance(data.standard_augmentation(), PaddedCrop)
    assert not isinstance(ImageFolder(str(tmp_path)).standard_augmentation(), PaddedCrop)
    train = data.splits()["train"]
    first = train.batch([(0, 0), (0, 1)]).inputs
    assert first.shape == (2, 3, 16, 16)
    monkeypatch.setattr(image_folder, "decode_image", None)  # not called again
    assert torch.equal(train.batch([(0, 0), (0, 1)]).inputs, first)
    assert train.subset([1]).batch([(3, 0)]).inputs.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("root", None, "data.root is the path of a folder, got None"),
        ("size", 12.5, "data.size is .* whole pixels, at least 1, got 12.5"),
        ("size", 0, "got 0"),
        ("mean", 0.5, r"data.mean has one number per channel.*got 0.5"),
        ("std", "0.5", r"data.std has one number per channel.*got the text '0.5'"),
        ("validation", 2.0, "data.validation is a share between 0 and 1, got 2.0"),
        ("validation", None, "data.validation is a share between 0 and 1, got None"),
    ],
)
def test_a_setting_of_another_kind_is_refused(name: str, value: object, message: str) -> None:
    settings: dict[str, Any] = {"root": "images", name: value}
    with pytest.raises(UserError, match=message):
        ImageFolder(**settings)

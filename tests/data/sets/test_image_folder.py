from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from tutelage import UserError
from tutelage.data import ImageFolder, _decoded, collate
from tutelage.data._files import decode_image
from tutelage.data.sets import image_folder
from tutelage.data.transforms import PaddedCrop


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


def test_transparent_and_gray_images_become_rgb(tmp_path: Path) -> None:
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
    monkeypatch.setattr(_decoded, "decode_image", None)  # not called again
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


def mixed_tree(root: Path) -> None:
    """Images of several sizes and formats, of which no two are equal."""
    for number in range(24):
        generator = torch.Generator().manual_seed(number)
        height, width = (int(side) for side in torch.randint(20, 60, (2,), generator=generator))
        coarse = torch.randint(256, (5, 5, 3), generator=generator, dtype=torch.uint8)
        image = Image.fromarray(coarse.numpy()).resize((width, height), Image.Resampling.BICUBIC)
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.{('jpg', 'png', 'webp')[number % 3]}")


AUGMENTATIONS = {
    "none": False,
    "standard": True,
    "small": PaddedCrop(40, padding=4),
    "torchvision": v2.RandomResizedCrop(40),
}


@pytest.mark.parametrize("decode", ["none", "memory", "disk"])
@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_sample_is_the_same_in_any_batch_and_worker(
    decode: Any, augment: str, tmp_path: Path
) -> None:
    mixed_tree(tmp_path)
    # Larger than a small image, so that the standard augmentation crops at random scale.
    data = ImageFolder(str(tmp_path), size=70, augment=AUGMENTATIONS[augment], decode=decode)
    train = data.splits()["train"]
    keys = [(3, position) for position in range(len(train))]
    whole = train.batch(keys)
    side = 70 if augment in ("none", "standard") else 40
    assert whole.inputs.shape == (len(train), 3, side, side)
    alone = [train.batch([key]).inputs for key in reversed(keys)]
    assert torch.equal(torch.cat(alone[::-1]), whole.inputs)
    finished = train.finish(train.load(keys), "cpu")
    assert torch.equal(finished.inputs, whole.inputs)
    again = data.splits()["train"]
    again.before_loading()
    batches = [keys[start : start + 5] for start in range(0, len(keys), 5)]
    loader = DataLoader(again, batch_sampler=batches, collate_fn=collate, num_workers=2)
    assert torch.equal(torch.cat([batch.inputs for batch in loader]), whole.inputs)
    is_drawn = augment != "none"
    assert is_drawn == (not torch.equal(train.batch([(4, 0)]).inputs, whole.inputs[:1]))


@pytest.mark.parametrize("decode", ["memory", "disk"])
@pytest.mark.parametrize("augment", ["none", "small"])
def test_kept_images_are_those_that_are_decoded_every_time(
    decode: Any, augment: str, tmp_path: Path
) -> None:
    mixed_tree(tmp_path)
    keys = [(0, position) for position in range(10)]
    batches = [
        ImageFolder(str(tmp_path), size=40, augment=AUGMENTATIONS[augment], decode=way)
        .splits()["train"]
        .batch(keys)
        .inputs
        for way in ("none", decode)
    ]
    assert torch.equal(*batches)


def test_what_is_decoded_to_disk_is_found_by_the_next_run_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed_tree(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = ImageFolder(str(tmp_path / "data"), size=40, augment=False, decode="disk")
    first = data.splits()["train"].batch([(0, 1)])
    says = capsys.readouterr().err
    assert "decoding 24 images to 40 pixels once, 0.1 MB in " in says
    (file,) = (tmp_path / "cache/tutelage/decoded").glob("*.npy")
    assert str(file) in says
    with monkeypatch.context() as patch:
        patch.setattr(_decoded, "decode_image", None)  # not called again
        again = data.splits()["train"]
        assert torch.equal(again.batch([(0, 1)]).inputs, first.inputs)
        assert again.reads_files is False
    write(tmp_path / "data/cat/0.jpg", (9, 8, 7), size=(64, 50))
    data.splits()["train"].batch([(0, 1)])
    assert len(list((tmp_path / "cache/tutelage/decoded").glob("*.npy"))) == 2


def test_decoding_to_disk_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_tree(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_decoded, "CHUNK", 4)
    monkeypatch.setattr("tutelage.cache.stored_rows.SAVE_EVERY", 4)
    data = ImageFolder(str(tmp_path / "data"), size=40, augment=False, decode="disk")
    expected = ImageFolder(str(tmp_path / "data"), size=40, augment=False, decode="none")
    decode = _decoded.decode_image
    paths: list[Path] = []

    def fails_at_the_tenth(path: Path) -> torch.Tensor:
        paths.append(path)
        if len(paths) > 9:
            raise KeyboardInterrupt
        return decode(path)

    monkeypatch.setattr(_decoded, "_num_cpus", lambda: 1)
    monkeypatch.setattr(_decoded, "decode_image", fails_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        data.splits()["train"].before_loading()
    done: list[Path] = []
    monkeypatch.setattr(_decoded, "decode_image", lambda path: done.append(path) or decode(path))
    train = data.splits()["train"]
    keys = [(0, position) for position in range(len(train))]
    assert torch.equal(train.batch(keys).inputs, expected.splits()["train"].batch(keys).inputs)
    assert len(done) == 16  # 8 of 24 were saved


def test_more_images_than_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed_tree(tmp_path)
    monkeypatch.setattr(_decoded, "_physical_memory", lambda: 10_000)
    data = ImageFolder(str(tmp_path), size=40, decode="memory")
    says = "24 images of 40 pixels take 0.1 MB and this machine has 0.0 MB; set data.decode to disk"
    with pytest.raises(UserError, match=says):
        data.splits()["test"].before_loading()


def test_files_are_checked_once_until_one_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mixed_tree(tmp_path / "data")
    copy = tmp_path / "data/dog/copy.jpg"
    copy.write_bytes((tmp_path / "data/cat/0.jpg").read_bytes())
    data = ImageFolder(str(tmp_path / "data"))
    with pytest.warns(UserWarning, match="1 images are there more than once") as first:
        data.raw_splits()
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "check_image_files", None)  # not called again
        with pytest.warns(UserWarning, match="1 images are there more") as second:
            data.raw_splits()
    assert [str(w.message) for w in second] == [str(w.message) for w in first]
    copy.write_bytes(copy.read_bytes()[:100])
    for _ in range(2):  # what was refused is not kept
        with pytest.raises(UserError, match=r"copy\.jpg cannot be decoded as an image"):
            data.raw_splits()
    copy.unlink()
    data.raw_splits()
    (record, _) = (tmp_path / "cache/tutelage/checked").glob("*.json")
    record.write_text("damaged")
    data.raw_splits()


def test_a_cache_folder_that_cannot_be_written_costs_a_check_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    mixed_tree(tmp_path / "data")
    assert len(ImageFolder(str(tmp_path / "data")).raw_splits()[0]) == 24
    disk = ImageFolder(str(tmp_path / "data"), decode="disk").splits()["test"]
    with pytest.raises(UserError, match=r"decoded images cannot be stored in .* XDG_CACHE_HOME"):
        disk.before_loading()


def test_images_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a-1/z.png", "a/y.png", "a.png", "a/b/x.png", "B.png")):
        write(tmp_path / "cat" / name, number)
    write(tmp_path / "dog/0.png", 99)
    paths = ImageFolder(str(tmp_path)).raw_splits()[0].files.paths
    assert paths == [str(path) for path in sorted(tmp_path.rglob("*.png"))]


def test_decode_is_one_of_its_choices() -> None:
    with pytest.raises(UserError, match=r"data.decode is one of \['auto', .* got 'ram'"):
        ImageFolder("images", decode="ram")  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("",)])
def test_every_folder_is_listed_once_for_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    for part in parts:
        tree(tmp_path / part, 12)
    listed: Counter[str] = Counter()
    scandir = os.scandir

    def counting(folder: str | int | Path) -> Any:
        # A folder that is open is given by its number.
        path = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) else folder
        listed[str(path)] += 1
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", counting)
    monkeypatch.setattr(os, "supports_fd", {*os.supports_fd, counting})
    assert set(ImageFolder(str(tmp_path), size=16).splits()) == {"train", "validation", "test"}
    classes = [str(tmp_path / part / name) for part in parts for name in ("cat", "dog")]
    # Once for the images; the first class folders are looked at for folders that look like parts.
    assert sum(listed[name] for name in classes) <= len(classes) + 4
    assert all(listed[name] for name in classes)


def test_a_system_that_cannot_list_an_open_folder_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    write(tmp_path / "cat" / "more" / "1.jpg.PNG", (255, 0, 0))
    expected = ImageFolder(str(tmp_path)).raw_splits()[0].files
    monkeypatch.setattr(os, "supports_fd", set())
    found = ImageFolder(str(tmp_path)).raw_splits()[0].files
    assert found.names() == expected.names()
    assert len(found.names()) == 21
    assert found.digest == expected.digest

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.coco import write_voc
from tests.helpers.own_data import (
    COLORS,
    LAYOUTS,
    image_bytes,
    write_boxes,
    write_image,
    write_listed,
    write_mask_lists,
    write_masks,
    write_table,
    write_tree,
)
from tutelage import UserError
from tutelage.recipes.starter import look_at

# Of the library `datasets`, which leaves files open.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognized(tmp_path: Path, name: str) -> None:
    write, task, _ = LAYOUTS[name]
    found = look_at(write(tmp_path / "data") and tmp_path / "data")
    assert found.task == task
    assert min(found.counts.values()) > 0
    assert str(tmp_path / "data") in str(next(iter(found.arguments.values())))


@pytest.mark.parametrize("form", ["struct", "binary", "lists", "file"])
def test_parquet_files_of_other_programs_are_read(tmp_path: Path, form: str) -> None:
    """Which have no record that a column holds images."""
    pytest.importorskip("datasets")
    pyarrow = pytest.importorskip("pyarrow")
    rows = [image_bytes(tmp_path, number, number) for number in range(48)]
    names = [list(COLORS)[number % 3] for number in range(48)]
    labels = [[name, "odd"] if form == "lists" else name for name in names]
    images = [row["bytes"] for row in rows] if form == "binary" else rows
    table = pyarrow.table({"image": pyarrow.array(images), "label": pyarrow.array(labels)})
    (tmp_path / "data").mkdir()
    file = tmp_path / "data/photos.parquet"
    pyarrow.parquet.write_table(table, file)
    found = look_at(file if form == "file" else file.parent)
    assert found.task == ("multi-label classification" if form == "lists" else "classification")
    assert found.classes == sorted({*COLORS, *(["odd"] if form == "lists" else [])})
    assert sum(found.counts.values()) == 48


def test_what_was_found_is_said(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 10, "val": 2})
    text = look_at(tmp_path).describe()
    assert "one folder a class, for classification" in text
    assert "train 24, validation 6, test 6" in text
    assert "3, blue, green, red" in text
    assert "24 × 24 pixels" in text


def test_classes_of_unequal_size_are_said(tmp_path: Path) -> None:
    for number in range(60):
        name = "rare" if number >= 55 else "usual"
        write_image(tmp_path / name / f"{number}.png", COLORS["red"], number)
    assert "class_weights: balanced" in look_at(tmp_path).describe()


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{part}", "masks/{part}"),
        ("{part}/images", "{part}/masks"),
        ("images", "labels"),
    ],
)
def test_masks_are_found_where_they_lie(tmp_path: Path, images: str, masks: str) -> None:
    write_masks(tmp_path, images, masks)
    found = look_at(tmp_path)
    assert (found.arguments["images"], found.arguments["masks"]) == (images, masks)
    assert found.arguments["size"] == [32, 48]


def test_numbers_that_are_no_classes_get_a_table(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / "images" / f"{number}.png", COLORS["red"], number)
        mask = Image.new("L", (24, 24), 0)
        mask.paste(255, (4, 4, 20, 20))
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{number}.png")
    found = look_at(tmp_path)
    assert found.arguments["values"] == {0: 0, 255: 1}
    assert found.classes == ["background", "object"]


def test_the_void_of_camvid_is_no_class(tmp_path: Path) -> None:
    for number, path in enumerate(sorted(write_masks(tmp_path).glob("*annot/*.png"))):
        Image.new("L", (48, 32), number % 12).save(path)
    found = look_at(tmp_path)
    assert (found.classes[0], len(found.classes)) == ("sky", 11)
    assert found.arguments["values"][11] == 255
    assert "CamVid" in found.remarks["names"]


def test_names_of_classes_are_read(tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / "classes.txt").write_text("wall\nbrick\nstone\n")
    assert look_at(tmp_path).classes == ["wall", "brick", "stone"]


def test_boxes_of_voc_name_the_command_that_converts_them(tmp_path: Path) -> None:
    write_voc(tmp_path / "cells")
    with pytest.raises(UserError, match=r"tutelage prepare voc --source .* --out cells-coco"):
        look_at(tmp_path / "cells")


def test_an_unknown_folder_lists_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing\n")
    with pytest.raises(UserError, match=r"annotations/instances_<part>.json.*corpus.jsonl"):
        look_at(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        look_at(tmp_path / "gone")


def test_a_single_folder_of_images_is_no_classification(tmp_path: Path) -> None:
    write_image(tmp_path / "pets/cats/1.png", COLORS["red"], 1)
    (tmp_path / "pets/empty").mkdir()
    with pytest.raises(UserError, match=r"only folder with images in .*pets is cats; .* two"):
        look_at(tmp_path / "pets")


def test_a_table_of_unusual_columns_is_named_with_them(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("kunde;artikel;sterne\n7;a;5\n")
    says = r"the columns of own\.csv \['kunde', 'artikel', 'sterne'\] rename two .* data\.user"
    with pytest.raises(UserError, match=says):
        look_at(tmp_path)


def test_an_ambiguous_folder_asks_for_the_layout(tmp_path: Path) -> None:
    write_boxes(tmp_path)
    write_mask_lists(tmp_path / "x")
    (tmp_path / "x" / "VOC2012").rename(tmp_path / "VOC2012")
    with pytest.raises(UserError, match=r"--layout coco .* or --layout voc-masks"):
        look_at(tmp_path)
    assert look_at(tmp_path, "coco").task == "detection"
    with pytest.raises(UserError, match="no layout 'cocoo'; did you mean"):
        look_at(tmp_path, "cocoo")


def test_a_table_beside_class_folders_is_taken_for_the_labels(tmp_path: Path) -> None:
    write_tree(tmp_path)
    rows = [[f"red/{n}.png", "warm"] for n in range(40, 60)]
    rows += [[f"blue/{n}.png", "cold"] for n in range(20)]
    write_table(tmp_path, ["path", "label"], rows, "labels.csv")
    assert look_at(tmp_path).classes == ["cold", "warm"]
    with pytest.warns(UserWarning, match="1 files outside of class folders"):
        assert look_at(tmp_path, "image-folder").classes == ["blue", "green", "red"]


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UserError, match=r"a\.csv is empty; write a header"):
        look_at(tmp_path)
    with pytest.raises(UserError, match=r"holds no train\*\.tar"):
        look_at(tmp_path, "tar")
    with pytest.raises(UserError, match="the folder is empty; give the one"):
        look_at("")


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_listed(tmp_path)
    (tmp_path / "photos" / "7.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"7\.png cannot be decoded"):
        look_at(tmp_path)

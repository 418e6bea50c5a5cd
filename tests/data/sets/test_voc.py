from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.helpers.coco import write_voc
from tutelage import UserError
from tutelage.data import Coco
from tutelage.data.sets._voc_xml import read_voc
from tutelage.data.sets.voc_boxes import prepare_voc


def test_voc_becomes_coco_with_the_same_pixels(tmp_path: Path) -> None:
    folder = prepare_voc(tmp_path / "out", write_voc(tmp_path / "voc"))
    data = Coco(str(folder), train="train", test="val", validation=0.5, augment=False)
    train, _, test = data.raw_splits()
    assert data.classes == ["background", "cat", "dog"]
    target = train[0].labels[0]
    assert target["boxes"].tolist() == [
        [0, 2, 10, 12],
        [20, 2, 30, 12],
    ]  # the last pixel of a VOC box lies in it
    assert target["area"].tolist() == [100, 100]
    assert target["labels"].tolist() == [2, 1]
    assert target["iscrowd"].tolist() == [False, True]  # difficult
    assert test is not None
    assert len(test) == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<xmin>1</xmin>", "", "object 1 has no number 'bndbox/xmin'"),
        ("<width>50</width>", "<width>wide</width>", "no number 'size/width'"),
        ("</annotation>", "", "no whole XML file"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    old: str, new: str, says: str, tmp_path: Path
) -> None:
    voc = write_voc(tmp_path / "voc")
    path = voc / "Annotations" / "val_1.xml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=f"val_1.xml.*{says}"):
        prepare_voc(tmp_path / "out", voc)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["voc"]


def test_lists_and_photographs_must_be_there(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    with pytest.raises(UserError, match=r"no.txt is missing"):
        prepare_voc(tmp_path / "out", voc, ["no"])
    (voc / "JPEGImages" / "train_1.jpg").unlink()
    with pytest.raises(UserError, match=r"train_1.jpg is missing, although train.txt lists it"):
        prepare_voc(tmp_path / "out", voc)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="object 1 has the name 'dog', which is none of"):
        read_voc(voc / "Annotations" / "val_1.xml", ["background", "cat"])


def edited(voc: Path, old: str, new: str, name: str = "train_1", encoding: str = "utf-8") -> Path:
    path = voc / "Annotations" / f"{name}.xml"
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new).encode(encoding))
    return voc


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("<name>dog</name>", "<name> </name>", "object 1 has no name"),
        ("<name>dog</name>", "<name>background</name>", "an object of the name 'background'"),
        ("<name>dog</name>", "<name>Dog</name>", "'Dog' .* and 'dog' .* differ only in case"),
        ("<xmin>1</xmin>", "<xmin>nan</xmin>", "no number 'bndbox/xmin'"),
        ("<difficult>0", "<difficult>hard", "the 'difficult' 'hard'; write 0 or 1"),
        ("<width>50<", "<width>640<", "has the size 640×40, but its image .* is 50×40"),
        ("<width>50<", "<width>inf<", "no number 'size/width'"),
        (
            "<annotation>",
            '<annotation xmlns="http://a.b">',
            "is no VOC annotation, as it has neither",
        ),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "defines entities"),
        ("<annotation>", '<?xml version="1.0" encoding="no"?><annotation>', "unknown encoding"),
    ],
)
def test_what_is_wrong_in_an_annotation_is_named(
    old: str, new: str, says: str, tmp_path: Path
) -> None:
    voc = edited(write_voc(tmp_path / "voc"), old, new)
    with pytest.raises(UserError, match=f"train_1.xml.*{says}|{says}"):
        prepare_voc(tmp_path / "out", voc)
    assert not (tmp_path / "out").exists()


def test_boxes_in_shares_are_refused(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    path = voc / "Annotations/val_1.xml"
    text = re.sub(r"<(x|y)m(in|ax)>\d+<", r"<\1m\2>0.5<", path.read_text())
    path.write_text(text)
    with pytest.raises(UserError, match=r"val_1.xml has boxes between 0 and 1, .* multiply"):
        prepare_voc(tmp_path / "out", voc)


@pytest.mark.parametrize(
    ("old", "new", "says", "boxes"),
    [
        (
            "<xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>12</ymax>",
            "<xmin>10</xmin><ymin>12</ymin><xmax>1</xmax><ymax>3</ymax>",
            "1 boxes with swapped corners",
            [[0, 2, 10, 12], [20, 2, 30, 12]],
        ),
        (
            "<xmin>1<",
            "<xmin>0<",
            "1 boxes that begin at pixel 0",
            [[0, 2, 10, 12], [20, 2, 30, 12]],
        ),
        ("<xmax>10<", "<xmax>99<", "1 boxes cut", [[0, 2, 50, 12], [20, 2, 30, 12]]),
        (
            "<xmin>1</xmin><ymin>3</ymin><xmax>10<",
            "<xmin>71</xmin><ymin>3</ymin><xmax>80<",
            "1 boxes without area in their image left out",
            [[20, 2, 30, 12]],
        ),
        (
            "<width>50</width><height>40<",
            "<width>0</width><height>0<",
            "1 sizes of images that are missing, 0 or swapped",
            [[0, 2, 10, 12], [20, 2, 30, 12]],
        ),
        (
            "<size><width>50</width><height>40</height><depth>3</depth></size>",
            "",
            "1 sizes of images that are missing, 0 or swapped",
            [[0, 2, 10, 12], [20, 2, 30, 12]],
        ),
        (
            "<width>50</width><height>40<",
            "<width>40</width><height>50<",
            "1 sizes of images that are missing, 0 or swapped",
            [[0, 2, 10, 12], [20, 2, 30, 12]],
        ),
        (
            "<object><name>cat",
            "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax>"
            "<ymax>12</ymax></bndbox></object><object><name>cat",
            "1 objects that are there twice with the same box, read once",
            [[0, 2, 10, 12], [20, 2, 30, 12]],
        ),
        (
            "<object><name>cat",
            "<object><name>dog</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>10</xmax>"
            "<ymax>12</ymax></bndbox><bndbox><xmin>5</xmin></bndbox></object><object><name>cat",
            "1 second boxes of an object, left out",
            [[0, 2, 10, 12], [2, 2, 10, 12], [20, 2, 30, 12]],
        ),
    ],
)
def test_what_is_mended_is_counted(
    old: str, new: str, says: str, boxes: list[list[int]], tmp_path: Path
) -> None:
    voc = edited(write_voc(tmp_path / "voc"), old, new)
    with pytest.warns(UserWarning, match=f"Annotations: {says}"):
        folder = prepare_voc(tmp_path / "out", voc)
    train = Coco(str(folder), "train", test=None, augment=False, keep_empty=True).raw_splits()[0]
    assert train[0].labels[0]["boxes"].tolist() == boxes
    assert train[0].inputs[0].shape == (3, 40, 50)


def test_a_size_that_does_not_hold_the_boxes_is_refused(tmp_path: Path) -> None:
    voc = edited(write_voc(tmp_path / "voc"), "<width>50<", "<width>0<")
    edited(voc, "<xmax>30<", "<xmax>60<")
    with pytest.raises(UserError, match=r"train_1.xml has the size 0×40, but its image"):
        prepare_voc(tmp_path / "out", voc)


@pytest.mark.parametrize(
    "declared", ["utf-16", "UTF-32", "punycode", "undefined", "hex", "no-such"]
)
def test_a_wrong_declaration_is_one_sentence_or_seen_through(declared: str, tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    edited(voc, "<annotation>", f'<?xml version="1.0" encoding="{declared}"?><annotation>')
    path = voc / "Annotations/train_1.xml"
    if declared.lower().startswith("utf"):  # UTF-8 all the same, or it could not be read
        assert read_voc(path)[1] == ["dog", "cat"]
        return
    with pytest.raises(UserError, match="is no whole XML file"):
        read_voc(path)


@pytest.mark.parametrize("encoding", ["latin-1", "gbk", "utf-16", "utf-8-sig"])
def test_an_annotation_is_read_in_the_encoding_that_it_declares(
    encoding: str, tmp_path: Path
) -> None:
    name = "狗" if encoding == "gbk" else "Hündchen"
    voc = write_voc(tmp_path / "voc")
    declared = "" if encoding.startswith("utf") else f' encoding="{encoding}"'
    edited(voc, "<annotation>", f'<?xml version="1.0"{declared}?><annotation>')
    edited(voc, "<name>dog<", f"<name>{name}<", encoding=encoding)
    assert read_voc(voc / "Annotations/train_1.xml")[1] == [name, "cat"]


def test_photographs_and_lists_are_found_in_any_spelling(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    (voc / "JPEGImages/train_1.jpg").rename(voc / "JPEGImages/train_1.JPG")
    (voc / "Annotations/val_1.xml").rename(voc / "Annotations/val_1.XML")
    (voc / "ImageSets/Main/train.txt").write_text("train_1  1\r\n", encoding="utf-8-sig")
    folder = prepare_voc(tmp_path / "out", voc)
    assert [path.name for path in (folder / "train").iterdir()] == ["train_1.JPG"]


@pytest.mark.parametrize("line", ["train 1", "train 1  -1", "train 1\t1"])
def test_names_may_have_spaces_and_end_in_a_number(line: str, tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    for name in ("JPEGImages/{}.jpg", "Annotations/{}.xml"):
        (voc / name.format("train_1")).rename(voc / name.format("train 1"))
    (voc / "ImageSets/Main/train.txt").write_text(f"{line}\n")
    folder = prepare_voc(tmp_path / "out", voc)
    assert [path.name for path in (folder / "train").iterdir()] == ["train 1.jpg"]


def test_names_in_lists_lead_nowhere_else_and_into_one_part(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    lists = voc / "ImageSets/Main"
    for name in ("../../x", "/etc/passwd"):
        (lists / "train.txt").write_text(f"{name}\n")
        with pytest.raises(UserError, match=r"train\.txt names the file .*inside of"):
            prepare_voc(tmp_path / "out", voc)
    (lists / "train.txt").write_text("train_1\nval_1\n")
    with pytest.warns(UserWarning, match="train and val of .*: 1 images are in both"):
        prepare_voc(tmp_path / "out", voc)


def test_lists_of_nothing_and_images_in_two_formats_are_refused(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    photo = voc / "JPEGImages/train_1.jpg"
    photo.with_suffix(".png").write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match=r"may be train_1\.jpg or train_1\.png; take one"):
        prepare_voc(tmp_path / "out", voc)
    photo.with_suffix(".png").unlink()
    (voc / "ImageSets/Main/val.txt").write_text("\n")
    with pytest.raises(UserError, match=r"val\.txt names no image"):
        prepare_voc(tmp_path / "out", voc)
    xml = voc / "Annotations/train_1.xml"
    xml.write_text(re.sub("<object>.*</object>", "", xml.read_text(), flags=re.DOTALL))
    with pytest.raises(UserError, match=r"no image that .* lists has an object"):
        prepare_voc(tmp_path / "out", voc, ["train"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("parts", [[], [""], ["train", "", "val"]])
def test_parts_without_a_name_are_refused(parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the parts are names of lists in .*, such as train,val"):
        prepare_voc(tmp_path / "out", write_voc(tmp_path / "voc"), parts)


def test_half_a_photograph_is_found_before_training(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    photo = voc / "JPEGImages/train_1.jpg"
    photo.write_bytes(photo.read_bytes()[: photo.stat().st_size // 2])
    with pytest.raises(UserError, match=r"train_1\.jpg cannot be decoded as an image"):
        prepare_voc(tmp_path / "out", voc)
    assert not (tmp_path / "out").exists()


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc")
    (voc / "Annotations/train_1.xml").unlink()
    os.mkfifo(voc / "Annotations/train_1.xml")
    with pytest.raises(UserError, match=r"train_1.xml is no regular file"):
        prepare_voc(tmp_path / "out", voc)

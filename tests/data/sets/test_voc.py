from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.coco import write_voc
from tutelage import UserError
from tutelage.data import Coco
from tutelage.data.sets.voc import prepare_voc, read_voc


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

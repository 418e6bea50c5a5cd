from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from tests.helpers.coco import ANNOTATIONS, CONTENT, write_coco
from tutelage import UserError
from tutelage.data import Coco
from tutelage.data.sets._coco_file import read_instances, write_instances


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    change(content)
    return content


def test_images_and_boxes_are_what_the_file_says(tmp_path: Path) -> None:
    data = Coco(str(write_coco(tmp_path)), validation=0.5, augment=False)
    splits = data.splits()
    assert data.classes == ["background", "person", "toothbrush"]
    assert [len(part) for part in splits.values()] == [1, 1, 2]
    batch = splits["test"].batch([(0, 0), (0, 1)])
    images, targets = batch.inputs, batch.labels
    assert [tuple(image.shape) for image in images] == [(3, 72, 96), (3, 80, 64)]
    assert targets[0]["boxes"].tolist() == [[10, 20, 40, 44], [0, 0, 60, 40]]
    assert type(targets[0]["boxes"]) is torch.Tensor
    assert [target["labels"].tolist() for target in targets] == [[1, 2], [1, 1]]
    assert targets[1]["iscrowd"].tolist() == [False, True]
    assert targets[0]["area"].tolist() == [500, 2400]
    assert batch.ids.tolist() == [0, 1] == [int(target["image_id"]) for target in targets]


def test_labels_can_be_the_category_ids_of_torchvisions_weights(tmp_path: Path) -> None:
    data = Coco(str(write_coco(tmp_path)), category_ids=True, augment=False)
    train, _, _ = data.raw_splits()
    assert train[0].labels[0]["labels"].tolist() == [1, 90]
    assert len(data.classes) == 91
    assert data.classes[90] == "toothbrush"
    assert data.classes[2] == "N/A"


def test_boxes_move_with_the_image_and_leave_with_it(tmp_path: Path) -> None:
    root = str(write_coco(tmp_path))
    plain, mirrored, cropped = (
        Coco(root, augment=augment).raw_splits()[0].subset_with(torch.tensor([0]), augment, 0)
        for augment in (None, v2.RandomHorizontalFlip(1.0), v2.CenterCrop(20))
    )
    assert torch.equal(mirrored[0].inputs[0], plain[0].inputs[0].flip(2))
    assert mirrored[0].labels[0]["boxes"].tolist() == [[56, 20, 86, 44], [36, 0, 96, 40]]
    batch = cropped[0]  # rows 26 to 46, columns 38 to 58
    image, target = batch.inputs[0], batch.labels[0]
    assert image.shape == (3, 20, 20)
    assert target["boxes"].tolist() == [[0, 0, 2, 18], [0, 0, 20, 14]]
    assert target["labels"].tolist() == [1, 2]
    padded = v2.Compose([v2.CenterCrop(30), v2.Pad(2)])
    gone = Coco(root).raw_splits()[0].subset_with(torch.tensor([1]), padded, 0)
    assert gone[0].labels[0]["boxes"].tolist() == [
        [15, 2, 32, 17]
    ]  # of the other one not a pixel is left
    assert gone[0].labels[0]["iscrowd"].tolist() == [True]


def test_an_augmentation_depends_on_seed_epoch_and_item_only(tmp_path: Path) -> None:
    train = Coco(str(write_coco(tmp_path)), validation=0.5).splits(seed=3)["train"]
    first = [train[epoch, 0].inputs[0] for epoch in range(8)]
    torch.manual_seed(99)
    again = [train[epoch, 0].inputs[0] for epoch in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(first[0], other) for other in first[1:])


def test_boxes_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"].extend([
        {**ANNOTATIONS[0], "id": 10, "bbox": [200, 10, 5, 5]},
        {**ANNOTATIONS[0], "id": 11, "bbox": [10, 10, 0, 5]},
        {**ANNOTATIONS[0], "id": 12, "bbox": [90, 60, 30, 30]},
    ]))  # fmt: skip
    root = write_coco(tmp_path, content)
    with pytest.warns(
        UserWarning, match="instances_train2017.json: 2 boxes without area .* 1 boxes cut"
    ) as told:
        train, _, _ = Coco(str(root), test=None).raw_splits()
    assert len(told) == 1
    assert train[0].labels[0]["boxes"].tolist()[-1] == [90, 60, 96, 72]
    assert len(train[0].labels[0]["boxes"]) == 3


def test_empty_images_are_evaluated_but_not_trained_on(tmp_path: Path) -> None:
    content = changed(lambda c: c.update(annotations=ANNOTATIONS[:2]))
    root = str(write_coco(tmp_path, content))
    with pytest.warns(UserWarning, match="1 images without boxes left out of training"):
        train, _, test = Coco(root).raw_splits()
    assert (len(train), len(test or [])) == (1, 2)
    assert test is not None
    assert test[1].labels[0]["boxes"].shape == (0, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(Coco(root, keep_empty=True).raw_splits()[0]) == 2


def test_a_part_without_any_box_is_said_before_training(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    path = root / "annotations/instances_val2017.json"
    path.write_text(json.dumps(changed(lambda c: c.update(annotations=[]))))
    with pytest.warns(UserWarning, match="instances_val2017.json has no box of a single object"):
        Coco(str(root)).raw_splits()


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown category": (
        lambda c: c["annotations"][1].update(category_id=5),
        "annotation 2 has the 'category_id' 5",
    ),
    "unknown image": (
        lambda c: c["annotations"][1].update(image_id=5),
        "annotation 2 has the 'image_id' 5",
    ),
    "short box": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
        "annotation 1 has the 'bbox' .1, 2, 3.",
    ),
    "a box that is not finite": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]),
        "'bbox'",
    ),
    "a box without category": (
        lambda c: c["annotations"][0].pop("category_id"),
        "no whole number 'category_id'",
    ),
    "no size": (lambda c: c["images"][0].pop("width"), "image 7 has no whole number 'width'"),
    "no file": (lambda c: c["images"][0].pop("file_name"), "image 7 has no 'file_name'"),
    "image twice": (lambda c: c["images"].append(c["images"][0]), "the image id 7 twice"),
    "no categories": (lambda c: c.update(categories=[]), "no 'categories'"),
    "no list": (lambda c: c.pop("annotations"), "no list 'annotations'"),
    "area in words": (
        lambda c: c["annotations"][1].update(area="large"),
        "annotation 2 has the 'area' 'large'; write a number",
    ),
    "area NaN": (lambda c: c["annotations"][1].update(area=float("nan")), "the 'area' 'nan'"),
    "area below 0": (lambda c: c["annotations"][1].update(area=-4), "the 'area' '-4'"),
    "area infinite": (lambda c: c["annotations"][1].update(area=float("inf")), "the 'area' 'inf'"),
    "crowd": (lambda c: c["annotations"][1].update(iscrowd="maybe"), "the 'iscrowd' 'maybe'"),
    "category twice": (
        lambda c: c["categories"].append({"id": 1, "name": "dog"}),
        "the category id 1 twice, as 'person' and as 'dog'",
    ),
    "empty name": (
        lambda c: c["categories"][1].update(name=" "),
        "category 90 has an empty 'name'",
    ),
    "null name": (
        lambda c: c["categories"][1].update(name=None),
        "category 90 has an empty 'name'",
    ),
    "size 0": (lambda c: c["images"][0].update(width=0), "image 7 has the 'width' 0"),
    "a size beyond all": (lambda c: c["images"][0].update(width=10**30), "image 7 has the 'width'"),
    "shares": (
        lambda c: [a.update(bbox=[0.1, 0.2, 0.5, 1]) for a in c["annotations"]],
        "boxes between 0 and 1, .* shares of the image; multiply",
    ),
    "huge box": (lambda c: c["annotations"][0].update(bbox=[10**400, 0, 1, 1]), "'bbox'"),
    "true box": (lambda c: c["annotations"][0].update(bbox=[True, 0, 1, 1]), "'bbox'"),
    "true id": (lambda c: c["images"][0].update(id=True), "no whole number 'id'"),
    "words": (lambda c: c["images"].append("a.jpg"), "an image has no whole number 'id'"),
    "outside": (
        lambda c: c["images"][0].update(file_name="../val2017/a.jpg"),
        r"image 7 names the file '../val2017/a.jpg'; give a name inside of",
    ),
    "absolute": (lambda c: c["images"][0].update(file_name="/etc/passwd"), "inside of"),
    "no name": (lambda c: c["images"][0].update(file_name=""), "inside of"),
    "null byte": (lambda c: c["images"][0].update(file_name="a\0.jpg"), "inside of"),
    "background": (lambda c: c["categories"].append({"id": 0, "name": "sky"}), "ids count from 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_wrong_in_the_file_is_named(name: str, tmp_path: Path) -> None:
    change, says = MISTAKES[name]
    root = write_coco(tmp_path, changed(change))
    with pytest.raises(UserError, match=f"instances_train2017.json.*{says}"):
        Coco(str(root), category_ids=name == "background").raw_splits()


def test_a_broken_file_an_image_that_is_missing_or_of_another_size_is_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    data = Coco(str(root), augment=False)
    Image.new("RGB", (64, 80)).save(root / "train2017" / "a.jpg")
    with pytest.raises(
        UserError, match=r"a.jpg is 64×80 pixels, but 'width' and 'height' in .*say 96×72"
    ):
        data.raw_splits()[0][0]
    (root / "train2017" / "a.jpg").write_bytes((root / "train2017" / "b.jpg").read_bytes()[:300])
    with pytest.raises(UserError, match=r"a.jpg cannot be decoded"):
        data.raw_splits()
    (root / "train2017" / "a.jpg").unlink()
    with pytest.raises(UserError, match=r"a.jpg cannot be decoded.*No such file"):
        data.raw_splits()
    (root / "annotations" / "instances_train2017.json").write_text("{")
    with pytest.raises(UserError, match="not whole JSON"):
        data.raw_splits()
    says = (
        r"instances_none.json is missing; the parts in .*annotations are: train2017, val2017; "
        r"name them in data.train, data.val and data.test"
    )
    with pytest.raises(UserError, match=says):
        Coco(str(root), train="none").raw_splits()
    with pytest.raises(UserError, match="there is no such folder"):
        Coco(str(root / "nowhere")).raw_splits()


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    path = root / "annotations" / "instances_train2017.json"
    found = read_instances(path, root / "train2017")
    write_instances(root / "again.json", found.images, found.classes)
    again = read_instances(root / "again.json", root / "train2017")
    assert again.classes == found.classes
    for one, two in zip(found.images, again.images, strict=True):
        assert (one.path, one.width, one.height) == (two.path, two.width, two.height)
        for name in ("boxes", "labels", "area", "crowd"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert json.loads((root / "again.json").read_text())["annotations"][3]["iscrowd"] == 1


@pytest.mark.parametrize("value", [1, "1", True, "true", 1.0])
def test_crowd_is_read_in_any_spelling(value: object, tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"][0].update(iscrowd=value))
    content["annotations"][1]["iscrowd"] = {1: 0, "1": "0", "true": "false"}.get(value)
    train = Coco(str(write_coco(tmp_path, content)), augment=False).raw_splits()[0]
    assert train[0].labels[0]["iscrowd"].tolist() == [True, False]


def test_an_area_that_is_null_is_that_of_the_box(tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"][0].update(area=None))
    del content["annotations"][1]["area"]
    content["annotations"][3]["area"] = "900.5"
    root = write_coco(tmp_path, content)
    with pytest.warns(UserWarning, match="1 boxes whose 'area' is null"):
        train = Coco(str(root), augment=False, test=None).raw_splits()[0]
    assert train[0].labels[0]["area"].tolist() == [30 * 24, 60 * 40]
    assert train[1].labels[0]["area"].tolist() == [400, 900.5]


def test_doubtful_boxes_and_names_are_counted(tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"].append(
        {**ANNOTATIONS[0], "id": 10, "bbox": [0.5, 0.5, 0.2, 0.3]}
    ))  # fmt: skip
    content["annotations"].append({**ANNOTATIONS[0], "id": 11, "bbox": [30, 30, -10, -5]})
    content["categories"][1]["name"] = "Person"
    content["images"][0]["file_name"] = "A.JPG"
    with pytest.warns(UserWarning, match="instances_train2017") as told:
        train = Coco(str(write_coco(tmp_path, content)), test=None).raw_splits()[0]
    assert len(told) == 1
    for part in (
        "1 boxes without area",
        "1 boxes smaller than a pixel",
        "2 categories whose names differ in case at most",
        "1 file names that are written in another case",
    ):
        assert part in str(told[0].message)
    assert train.images[0].path.name == "a.jpg"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_an_encoding_with_a_mark_is_read(encoding: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    path = root / "annotations/instances_train2017.json"
    content = changed(lambda c: c["categories"][0].update(name="Hündchen"))
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert read_instances(path, root / "train2017").classes[1] == "Hündchen"
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(UserError, match=r"is not whole JSON .*in UTF-8"):
        read_instances(path, root / "train2017")
    for text in ("[1, 2]", "3", "[" * 100_000, '{"images": {}}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"train2017.json (has no list|is not whole)"):
            read_instances(path, root / "train2017")


def test_category_ids_have_a_bound(tmp_path: Path) -> None:
    content = changed(lambda c: c["categories"].append({"id": 10**12, "name": "far"}))
    root = write_coco(tmp_path, content)
    assert Coco(str(root)).classes[3] == "far"
    with pytest.raises(UserError, match="id 1000000000000; ids count from 1"):
        Coco(str(root), category_ids=True).raw_splits()


def test_an_image_in_two_parts_is_told(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "val2017/b.jpg").write_bytes((root / "train2017/b.jpg").read_bytes())
    with pytest.warns(UserWarning, match="train2017 and val2017 of .* 1 images are in both"):
        Coco(str(root)).raw_splits()


def test_an_image_is_upright_if_its_boxes_are(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    exif = Image.Exif()
    exif[0x112] = 6
    for name in ("a.jpg", "b.jpg"):
        Image.open(root / "train2017" / name).save(root / "train2017" / name, exif=exif)
    content = changed(lambda c: c["images"][1].update(width=80, height=64))
    (root / "annotations/instances_train2017.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1 images whose EXIF orientation is not applied"):
        train = Coco(str(root), augment=False, test=None).raw_splits()[0]
    assert [tuple(train[i].inputs[0].shape[1:]) for i in range(2)] == [(72, 96), (64, 80)]


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    with (root / "annotations/instances_train2017.json").open("rb+") as file:
        file.truncate(2**33)  # without blocks on the disk
    with pytest.raises(UserError, match="has 8589934592 bytes, more than such a file can have"):
        Coco(str(root)).splits()


def test_whole_numbers_may_be_written_as_floats(tmp_path: Path) -> None:
    content = changed(lambda c: c["images"][0].update(width=96.0, height=72.0, id=7.0))
    content["annotations"][0].update(image_id=7.0, category_id=1.0)
    image = Coco(str(write_coco(tmp_path, content)), keep_empty=True).raw_splits()[0].images[0]
    assert (image.width, image.height, image.labels.tolist()) == (96, 72, [1, 2])
    write_coco(tmp_path, changed(lambda c: c["images"][0].update(width=96.5)))
    with pytest.raises(UserError, match="no whole number 'width'"):
        Coco(str(tmp_path)).raw_splits()


def test_areas_are_floats_whatever_the_file_has(tmp_path: Path) -> None:
    content = changed(lambda c: [entry.pop("area") for entry in c["annotations"]])
    train = Coco(str(write_coco(tmp_path, content)), augment=False).raw_splits()[0]
    area = train[0].labels[0]["area"]
    assert (area.dtype, area.tolist()) == (torch.float32, [720.0, 2400.0])


def test_an_annotation_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"].append(dict(ANNOTATIONS[0])))
    content["annotations"].append({**ANNOTATIONS[0], "bbox": [1, 2, 30, 24]})
    with pytest.warns(UserWarning, match="1 annotations that are there twice") as told:
        train = Coco(str(write_coco(tmp_path, content)), test=None).raw_splits()[0]
    assert "1 annotations whose id another one has, too" in str(told[0].message)
    assert len(train.images[0].boxes) == 3


def test_a_box_that_is_there_under_two_ids_is_read_twice_and_counted(tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"].append({**ANNOTATIONS[0], "id": 99}))
    with pytest.warns(UserWarning, match="1 boxes that their image has twice in the same category"):
        train = Coco(str(write_coco(tmp_path, content)), test=None).raw_splits()[0]
    assert len(train.images[0].boxes) == 3


def test_an_area_of_zero_is_that_of_the_box(tmp_path: Path) -> None:
    content = changed(lambda c: c["annotations"][0].update(area=0))
    with pytest.warns(UserWarning, match="1 boxes whose 'area' is 0"):
        train = Coco(str(write_coco(tmp_path, content)), augment=False, test=None).raw_splits()[0]
    assert train[0].labels[0]["area"].tolist() == [30 * 24, 60 * 40]

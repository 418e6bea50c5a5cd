from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
    (root / "train2017" / "a.jpg").write_bytes((root / "train2017" / "b.jpg").read_bytes())
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
    with pytest.raises(UserError, match=r"instances_none.json is missing"):
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

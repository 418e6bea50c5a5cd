"""MPII: the usual JSON files with head boxes, and the release in MATLAB's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from tutelage.data import Mpii
from tutelage.errors import UserError
from tutelage.tasks import Pose

JOINTS = [[20 + 3 * joint, 30 + 2 * joint] for joint in range(16)]


def images(folder: Path, count: int) -> None:
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (120, 100)).save(folder / f"images/{number}.jpg")


def person(number: int, **changes: Any) -> dict[str, Any]:
    fields = {"joints": JOINTS, "joints_vis": [1] * 15 + [0], "center": [61, 51], "scale": 0.4}
    return {"image": f"{number}.jpg", **fields, **changes}


def usual(folder: Path, train: list[dict[str, Any]], valid: list[dict[str, Any]]) -> Mpii:
    images(folder, 6)
    (folder / "annot").mkdir()
    (folder / "annot/train.json").write_text(json.dumps(train))
    (folder / "annot/valid.json").write_text(json.dumps(valid))
    boxes = np.zeros((2, 2, len(valid)))
    boxes[1] = [[3.0] * len(valid), [4.0] * len(valid)]
    savemat(folder / "annot/gt_valid.mat", {"headboxes_src": boxes})
    return Mpii(str(folder), size=(64, 64), validation=0.25, augment=False)


def test_persons_of_the_usual_files(tmp_path: Path) -> None:
    data = usual(tmp_path, [person(n) for n in range(4)], [person(4), person(5)])
    parts = data.splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }
    batch = parts["test"].batch([(0, 0)])
    # The region is 200 · 0.4 · 1.25 pixels high and wide, around (60, 50 + 6), from 0.
    scale = 64 / 100
    assert batch["reference"].item() == pytest.approx(0.6 * 5 * scale)
    x, y, weight = batch.labels[0, 0].tolist()
    assert (x, y) == pytest.approx(((19.5 - 10.5) * scale - 0.5, (29.5 - 6.5) * scale - 0.5))
    assert weight == 1.0
    assert batch.labels[0, 15, 2] == 0.0
    # Without a head box it is the distance of head top and upper neck.
    train = parts["train"].batch([(0, 0)])
    assert train["reference"].item() == pytest.approx(np.hypot(3, 2) * scale)


def test_persons_of_the_release(tmp_path: Path) -> None:
    images(tmp_path, 12)
    points = np.array(
        [{"x": float(x), "y": float(y), "id": joint} for joint, (x, y) in enumerate(JOINTS)]
    )
    body = {"x1": 1, "y1": 1, "x2": 4, "y2": 5, "scale": 0.4, "objpos": {"x": 61, "y": 51}}
    full = {**body, "annopoints": {"point": points}}
    empty = np.zeros((0, 0))
    records = [{"image": {"name": f"{n}.jpg"}, "annorect": full} for n in range(10)]
    records += [{"image": {"name": "10.jpg"}, "annorect": empty}]
    records += [{"image": {"name": "11.jpg"}, "annorect": full}]
    release = {"annolist": np.array(records), "img_train": np.array([1] * 11 + [0])}
    savemat(tmp_path / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    parts = Mpii(str(tmp_path), size=(64, 64), validation=0.2, augment=False).splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 7,
        "validation": 2,
        "test": 1,
    }
    batch = parts["test"].batch([(0, 0)])
    assert batch["reference"].item() == pytest.approx(0.6 * 5 * 0.64)
    assert batch.labels[0, :, 2].sum() == 16


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither annot/train\.json nor"):
        Mpii(str(tmp_path)).splits()
    wrong = [person(0), person(1, scale=0)]
    data = usual(tmp_path, wrong, [person(4)])
    with pytest.raises(UserError, match=r"train\.json: person 1 has coordinates or a scale"):
        data.splits()
    (tmp_path / "annot/train.json").write_text(json.dumps([person(0, joints=[[1, 2]])]))
    with pytest.raises(UserError, match="person 0 lacks or garbles one of joints"):
        data.splits()
    (tmp_path / "annot/train.json").write_text(json.dumps([person(0)] * 3))
    (tmp_path / "annot/valid.json").write_text(json.dumps([person(4)] * 3))
    with pytest.raises(UserError, match=r"shape \(2, 2\), but valid\.json has 3 persons"):
        data.splits()


def test_persons_of_one_image_stay_in_one_part(tmp_path: Path) -> None:
    train = [person(n % 4) for n in range(16)]
    parts = usual(tmp_path, train, [person(4), person(5)]).splits()
    seen = [{int(i) for i in parts[name].images} for name in ("train", "validation")]
    assert [len(images) for images in seen] == [3, 1]
    assert not seen[0] & seen[1]
    assert [len(parts[name]) for name in ("train", "validation")] == [12, 4]


def test_a_joint_beside_the_region_has_no_target_and_is_tested_on(tmp_path: Path) -> None:
    joints = [[119, 99], *JOINTS[1:]]
    away = person(4, joints=joints, center=[21, 21], scale=0.1)
    batch = usual(tmp_path, [person(n) for n in range(4)], [away]).splits()["test"].batch([(0, 0)])
    assert batch.labels[0, 0, 2] == 0.0
    assert batch["joints"][0, :, 2].tolist() == [1.0] * 15 + [0.0]
    # In pixels of the input it is where the affine map brings it.
    crop = batch["crops"][0]
    back = crop[:, :2] @ batch["joints"][0, 0, :2] + crop[:, 2]
    torch.testing.assert_close(back, torch.tensor([118.0, 98.0]), rtol=0, atol=1e-2)
    metrics = Pose(16, sigma=1.0).metrics()
    metrics.update(torch.rand(1, 16, 16, 16), batch)
    assert metrics.compute()["num_samples"] == 15


def test_a_joint_that_is_none_of_the_release_is_named(tmp_path: Path) -> None:
    images(tmp_path, 1)
    points = np.array([{"x": 1.0, "y": 2.0, "id": 16}, {"x": 1.0, "y": 2.0, "id": 0}])
    body = {"scale": 0.4, "objpos": {"x": 61, "y": 51}, "annopoints": {"point": points}}
    record = {"image": {"name": "0.jpg"}, "annorect": body}
    release = {"annolist": np.array([record, record]), "img_train": np.array([1, 1])}
    savemat(tmp_path / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release})
    with pytest.raises(UserError, match=r"0\.jpg has the joint 16 of 0 to 15"):
        Mpii(str(tmp_path)).splits()

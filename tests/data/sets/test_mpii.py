"""MPII: the usual JSON files with head boxes, and the release in MATLAB's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tutelage.data import Mpii
from tutelage.errors import UserError

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

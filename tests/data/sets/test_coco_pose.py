"""Persons in COCO's format: crops, what is left out, mistakes; precision against pycocotools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tutelage.core import Batch
from tutelage.core.prediction import ClassMap
from tutelage.data import CocoPose
from tutelage.errors import UserError
from tutelage.tasks import Pose
from tutelage.tasks.pose import gaussian_maps

NAMES = ["nose", "left_hand", "right_hand"]
PAIRS = [("left_hand", "right_hand")]
POINTS = [30, 20, 2, 20, 40, 1, 42, 44, 2]


def person(number: int, image: int, **changes: Any) -> dict[str, Any]:
    fields = {"keypoints": POINTS, "num_keypoints": 3, "bbox": [16, 10, 30, 40], "area": 900.0}
    own = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0}
    return {**own, **fields, **changes}


def write(folder: Path, part: str, persons: list[dict[str, Any]]) -> None:
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images = []
    for number in range(1, 5):
        Image.new("RGB", (64, 60), (9 * number,) * 3).save(folder / part / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 60})
    content = {
        "images": images,
        "annotations": persons,
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": []}],
    }
    (folder / f"annotations/person_keypoints_{part}.json").write_text(json.dumps(content))


def layout(folder: Path, persons: list[dict[str, Any]]) -> CocoPose:
    write(folder, "train2017", persons)
    write(folder, "val2017", [person(n, n) for n in range(1, 5)])
    return CocoPose(str(folder), size=(64, 48), flip_pairs=PAIRS, validation=0.25, augment=False)


def test_a_person_is_cut_out_in_the_proportions_of_the_input(tmp_path: Path) -> None:
    parts = layout(tmp_path, [person(n, 1 + n % 4) for n in range(8)]).splits()
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 6,
        "validation": 2,
        "test": 4,
    }
    batch = parts["test"].batch([(0, 0), (0, 1)])
    assert batch.inputs.shape == (2, 3, 64, 48)
    # The box is 30 × 40, which has the proportions already: 37.5 × 50 around (31, 30).
    scale = 64 / 50
    x, y, weight = batch.labels[0, 0].tolist()
    assert (x, y) == pytest.approx(((30.5 - 12.25) * scale - 0.5, (20.5 - 5) * scale - 0.5))
    assert weight == 1.0
    assert batch["area"].tolist() == [900.0, 900.0]
    assert batch["image_id"].tolist() == [1, 2]
    torch.testing.assert_close(batch["image_points"][0], torch.tensor(POINTS).float().view(3, 3))


def test_crowds_persons_without_points_and_points_outside_are_counted(tmp_path: Path) -> None:
    persons = [person(n, 1 + n % 2) for n in range(5)]
    persons.append(person(10, 1, iscrowd=1))
    persons.append(person(11, 1, keypoints=[0] * 9, num_keypoints=0))
    persons.append(person(12, 1, keypoints=[30, 20, 2, 400, 40, 1, 42, 44, 2]))
    with pytest.warns(UserWarning, match=r"1 points beside.*1 regions of many.*1 persons without"):
        parts = layout(tmp_path, persons).splits()
    assert len(parts["train"]) + len(parts["validation"]) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [1, 2, 2]}, "annotation 3 has the 'keypoints'.*has 3; write x, y and vis"),
        ({"keypoints": [1, 2, 7] * 3}, "visibility other than 0, 1 and 2"),
        ({"image_id": 77}, "'image_id' 77, which no image has"),
        ({"bbox": [1, 2]}, "has the 'bbox'"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    persons = [person(n, 1) for n in range(3)] + [person(3, 1, **changes)]
    with pytest.raises(UserError, match=message):
        layout(tmp_path, persons).splits()


def test_files_that_are_missing_or_have_no_keypoints_are_named(tmp_path: Path) -> None:
    data = layout(tmp_path, [person(n, 1 + n) for n in range(3)])
    (tmp_path / "train2017/1.jpg").unlink()
    with pytest.raises(UserError, match=r"1\.jpg cannot be decoded"):
        data.splits()
    path = tmp_path / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": "person"}]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="0 categories with 'keypoints'"):
        data.splits()


def test_precision_is_that_of_pycocotools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    sigmas = [0.03, 0.06, 0.09]
    generator = torch.Generator().manual_seed(2)
    persons = []
    for number in range(12):
        moved = torch.tensor(POINTS).float().view(3, 3)
        moved[:, :2] += 8 * torch.rand(3, 2, generator=generator)
        area = float(300 + 2000 * torch.rand((), generator=generator))
        points = moved.flatten().tolist()
        # pycocotools takes a match with the id 0 for none.
        persons.append(person(number + 1, 1 + number % 4, keypoints=points, area=area))
    layout(tmp_path, [person(n, 1 + n % 4) for n in range(4)])
    write(tmp_path, "val2017", persons)
    data = CocoPose(str(tmp_path), (64, 48), flip_pairs=PAIRS, validation=0.25, augment=False)
    test = data.splits()["test"]
    batch = test.batch([(0, position) for position in range(12)])
    found = batch.labels.clone()
    found[..., :2] += 2 * torch.randn(12, 3, 2, generator=generator)
    maps, _ = gaussian_maps(found, (64, 48), (1, 1))
    maps = maps * (0.3 + 0.7 * torch.rand(12, 1, 1, 1, generator=generator))
    task = Pose(3, oks_sigmas=sigmas)
    metrics = task.metrics()
    metrics.update(maps, batch)
    ours = metrics.compute()

    records = [p.record for p in task.predictions(maps, batch, ClassMap(NAMES), None)]
    peaks = maps.flatten(-2).amax(-1)
    detections = []
    for number, record in enumerate(records):
        rows = [(joint["x"], joint["y"], 1.0) for joint in record["joints"].values()]
        seen = peaks[number][peaks[number] > 0.2]
        detections.append(
            {
                "image_id": 1 + number % 4,
                "category_id": 1,
                "keypoints": [value for row in rows for value in row],
                "score": float(seen.mean()) if len(seen) else 0.0,
            }
        )
    truth = coco.COCO(str(tmp_path / "annotations/person_keypoints_val2017.json"))
    run = evaluation.COCOeval(truth, truth.loadRes(detections), "keypoints")
    run.params.kpt_oks_sigmas = torch.tensor(sigmas).double().numpy()
    run.evaluate()
    run.accumulate()
    run.summarize()
    capsys.readouterr()
    assert 0.05 < ours["ap"] < 0.95
    assert ours["ap"] == pytest.approx(run.stats[0], abs=0.01)
    assert ours["ap50"] == pytest.approx(run.stats[1], abs=0.01)
    assert ours["ar"] == pytest.approx(run.stats[5], abs=0.01)


def test_data_without_areas_has_no_precision() -> None:
    maps = torch.zeros(1, 3, 8, 8)
    metrics = Pose(3, oks_sigmas=[0.1] * 3).metrics()
    batch = Batch.of((torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 3)))
    with pytest.raises(UserError, match=r"needs data with .*image_points.*task.oks_sigmas"):
        metrics.update(maps, batch)

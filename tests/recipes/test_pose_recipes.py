"""The recipes for poses: planned on tiny data in the real layouts; the mouse is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.data.sets import test_coco_pose, test_mpii
from tests.data.sets.test_deeplabcut import HEADER, project
from tutelage.cli import main
from tutelage.data.sets.coco_pose import NAMES
from tutelage.data.sets.mpii import NAMES as MPII_NAMES

SMALLER = ["--student.model.width", "8", "--data.size", "[64,64]", "--data.validation", "0.25"]
SMALLER += ["--train.batch_size", "2", "--train.num_workers", "0"]


def planned(name: str, root: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["plan", name, "--data.root", str(root), *options]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["okdhp_hourglass4", "okdhp_unbalanced"])
def test_coco_can_be_planned(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [value for joint in range(17) for value in (20 + joint, 12 + 2 * joint, 2)]
    persons = [test_coco_pose.person(n, 1 + n % 4, keypoints=points) for n in range(4)]
    for part in ("train2017", "val2017"):
        test_coco_pose.write(tmp_path, part, persons)
        path = tmp_path / f"annotations/person_keypoints_{part}.json"
        content = json.loads(path.read_text())
        content["categories"][0]["keypoints"] = list(NAMES)
        path.write_text(json.dumps(content))
    out = planned(f"pose/coco/{name}", tmp_path, capsys, *SMALLER)
    assert "train 3  validation 1  test 4" in out
    assert "okdhp/kd" in out


def test_mpii_can_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(MPII_NAMES) == 16
    people = [test_mpii.person(n) for n in range(4)]
    test_mpii.usual(tmp_path, people, people)
    out = planned("pose/mpii/okdhp_hourglass4", tmp_path, capsys, *SMALLER)
    assert "train 3  validation 1  test 4" in out


def mouse(folder: Path) -> Path:
    """Write frames whose two joints are bright spots."""
    lines = []
    for number in range(20):
        x, y = 4 + number, 6 + number // 2
        lines.append(f"labeled-data/clip/img{number:02d}.png,{x},{y},{x + 10},{y + 8}")
    project(folder, lines, HEADER[0], images=20)
    for number in range(20):
        image = Image.new("L", (40, 30))
        x, y = 4 + number, 6 + number // 2
        image.putpixel((x, y), 255)
        image.putpixel((x + 10, y + 8), 255)
        image.save(folder / f"labeled-data/clip/img{number:02d}.png")
    return folder


def test_a_run_trains_resumes_and_answers_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mouse(tmp_path / "data")
    options = ["--data.root", "data", "--data.blocks", "null", "--data.size", "[32,32]"]
    options += ["--task.num_joints", "2", "--task.names", "[nose,tail]", "--task.groups", "null"]
    options += ["--student.model.num_joints", "2", "--student.model.width", "4"]
    options += ["--train.epochs", "2", "--train.warmup_epochs", "0", "--train.batch_size", "4"]
    run = ["train", "pose/mirror-mouse/okdhp", *options, "--out", "run"]
    assert main(run) == 0, capsys.readouterr().err
    metrics = json.loads(Path("run/metrics.json").read_text())["test"]
    assert {"pck", "pck@0.1", "ensemble/pck", "branch2/pck", "constant/pck", "pck/tail"} <= set(
        metrics
    )
    assert main([*run, "--resume"]) == 0
    assert main(["evaluate", "run", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert evaluated["pck"] == metrics["pck"]
    # The data is not needed to answer an image.
    image = "data/labeled-data/clip/img03.png"
    Path("data/CollectedData.csv").unlink()
    assert main(["predict", "run", image, "--draw", "drawn", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer["joints"]) == ["nose", "tail"]
    with Image.open("drawn/img03-predicted.png") as drawn:
        assert drawn.size == (40, 30)
    assert main(["predict", "run", image]) == 0
    assert "nose" in capsys.readouterr().out
    assert main(["report", "run"]) == 0
    page = Path("run/report.html").read_text()
    assert "student · ensemble" in page
    assert main(["predict", "run", "nowhere.png"]) == 2
    assert "there is no input nowhere.png" in capsys.readouterr().err
    # Two images of one name would overwrite each other's drawing.
    shutil.copy(image, "img03.jpg")
    assert main(["predict", "run", image, "img03.jpg", "--draw", "drawn"]) == 2
    assert "would both be drawn to drawn/img03-predicted.png" in capsys.readouterr().err

"""What the pages show of pictures: the same images side by side; broken ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.dense import detection_recipe, write_shapes
from tests.helpers.pictured import CLASSES, STUDENT, write_masks
from tests.report.test_page import Reader, read, refused
from tutelage import PCKA, Baseline
from tutelage.engine import fit
from tutelage.report.matching import Boxes
from tutelage.report.panels import PictureRow, prediction_panel, truth_panel
from tutelage.report.previews import Annotation


def text_of(page: Reader) -> str:
    return page.text.split("What they find")[1].split("Validation")[0]


def test_a_study_shows_everybody_on_the_same_images(pictured: Path, tmp_path: Path) -> None:
    page = read(pictured, tmp_path)
    panel = "truth 2 boxes tree <b>car</b> teacher 2 of 2 found, 0 false"
    assert text_of(page).count(panel) == 2
    for who in (
        "baseline 0 of 2 found, 0 false",
        "kd 1 of 2 found, 0 false",
        "truth 0 boxes",
        "score ≥ 0.70",
    ):
        assert who in text_of(page)
    assert page.text.count("nothing to find, 0 false") == 3
    assert (
        sum(load.startswith("data:image/jpeg;base64,") for load in page.loads) == 4
    )  # each once, one more for the map
    assert "b" not in page.tags


def test_a_run_shows_its_student(pictured: Path, tmp_path: Path) -> None:
    page = read(pictured / "kd/seed0", tmp_path)
    assert "student 1 of 2 found, 0 false" in text_of(page)
    assert "student · fpn[0]" in page.text
    assert "mean 0.51" in page.text
    assert "baseline 0 of 2" not in read(pictured / "baseline/seed0", tmp_path).text


def test_what_is_shown_depends_on_the_score() -> None:
    truth = Annotation("truth", Boxes([[10, 10, 50, 40], [60, 20, 90, 60]], [1, 2]), None)
    seen = Annotation("kd", Boxes(STUDENT["boxes"], STUDENT["labels"], STUDENT["scores"]), None)
    panel, _ = prediction_panel(seen, truth, CLASSES)
    assert [panel.caption_at(threshold) for threshold in (0.1, 0.25, 0.7, 0.85)] == [
        "1 of 2 found, 2 false",
        "1 of 2 found, 1 false",
        "1 of 2 found, 0 false",
        "0 of 2 found, 0 false",
    ]
    assert [shape.tooltip.split("\n")[0] for shape in panel.shapes if shape.is_shown(0.85)] == [
        "missed: tree",
        "missed: <b>car</b>",
    ]
    assert panel.shapes == sorted(
        panel.shapes, key=lambda shape: -shape.position[2] * shape.position[3]
    )


def test_names_stay_in_the_picture_and_out_of_crowds() -> None:
    few = truth_panel(
        Annotation("truth", Boxes([[97, 1, 99, 9], [10, 50, 20, 60]], [1, 1]), None), CLASSES
    )
    photo = PictureRow("key", "name", "data:,", 100, 80)
    for shape in few.shapes:
        x, y = photo.tag_position(shape)
        assert 0 <= x <= 100 - len("tree") * 0.6 * photo.font_size
        assert photo.font_size * 0.8 <= y <= 80
    many = truth_panel(Annotation("truth", Boxes([[0, 0, 9, 9]] * 13, [1] * 13), None), CLASSES)
    assert {shape.tag for shape in many.shapes} == {""}
    assert {shape.tooltip for shape in many.shapes} == {"tree"}
    boxes = Boxes([[0, 0, 9, 9]] * 9, [1] * 9, [0.9] * 8 + [0.5])
    found, _ = prediction_panel(
        Annotation("kd", boxes, None),
        Annotation("truth", Boxes([[0, 0, 9, 9]], [1]), None),
        CLASSES,
    )
    assert [found.is_crowded(threshold) for threshold in (0.4, 0.6)] == [True, False]
    single = truth_panel(
        Annotation("truth", Boxes([[0, 0, 9, 9]], [1]), None), ["background", "tree"]
    )
    assert single.shapes[0].tag == ""  # there is only one thing that it can be


def test_names_of_classes_do_not_run_into_each_other() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[20:60:2], mask[21:60:2], mask[90:] = (
        1,
        2,
        3,
    )  # two classes about the same place, and one elsewhere
    panel = truth_panel(Annotation("truth", None, mask), ["background", "gray", "white", "skin"])
    assert [word for word, _, _ in panel.labels] == ["gray", "skin"]
    assert panel.caption == "gray 20 %, white 20 %, skin 10 %"


def test_masks_are_compared(pictured: Path, tmp_path: Path) -> None:
    run = pictured / "kd/seed0"
    shutil.rmtree(run / "pictures")
    write_masks(run)
    page = read(run, tmp_path)
    tree, rest = 39 / 40, 39 / 40
    assert f"IoU {100 * (tree + rest) / 2:.1f} %, pixels {100 * 78 / 79:.1f} %" in text_of(page)
    assert "truth tree 49 % tree" in text_of(page)
    assert "score ≥" not in text_of(page)


def test_only_images_that_all_runs_kept(pictured: Path, tmp_path: Path) -> None:
    path = pictured / "baseline/seed0/pictures/pictures.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": content["images"][1:]}))
    assert text_of(read(pictured, tmp_path)).count("truth") == 2
    shutil.rmtree(
        pictured / "baseline/seed0/pictures"
    )  # an older run, or one that failed to keep any
    assert text_of(read(pictured, tmp_path)).count("truth") == 3
    shutil.rmtree(pictured / "kd/seed0/pictures")
    assert "What they find" not in read(pictured, tmp_path).text


@pytest.mark.parametrize("key", ["classes", "images"])
@pytest.mark.parametrize("value", ["missing", 3, [3], None])
def test_pictures_are_broken(
    key: str, value: Any, pictured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictured / "kd/seed0/pictures/pictures.json"
    content = {**json.loads(path.read_text()), key: value}
    if value == "missing":
        del content[key]
    path.write_text(json.dumps(content))
    if (key, value) != ("classes", [3]):
        assert "pictures.json" in refused(pictured / "kd/seed0", capsys)


@pytest.mark.parametrize("key", ["file", "width", "truth", "student", "teacher", "maps"])
@pytest.mark.parametrize(
    "value",
    ["missing", 3, [3], "x", {"boxes": [[1, 2]], "labels": [1], "scores": [0.5]}, {"a": []}],
)
def test_an_image_is_broken(
    key: str, value: Any, pictured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pictured / "kd/seed0/pictures/pictures.json"
    content = json.loads(path.read_text())
    content["images"][0][key] = value
    if value == "missing":
        del content["images"][0][key]
    path.write_text(json.dumps(content))
    if (key, value) != ("width", 3):
        assert "pictures" in refused(pictured / "kd/seed0", capsys)


def test_a_file_elsewhere_is_not_shown(
    pictured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("secret")
    path = pictured / "kd/seed0/pictures/pictures.json"
    content = json.loads(path.read_text())
    content["images"][0]["file"] = str(tmp_path / "secret")
    path.write_text(json.dumps(content))
    assert "pictures/secret is missing" in refused(pictured / "kd/seed0", capsys)


def test_a_real_run_from_training_to_page(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "data", {"train": 4, "val": 2, "test": 3})
    fit(detection_recipe(root, Baseline(), None, width=64), tmp_path / "teacher")
    fit(
        detection_recipe(
            root, PCKA({"backbone[0]": "backbone[0]"}, patch_size="auto"), tmp_path / "teacher"
        ),
        tmp_path / "run",
    )
    page = read(tmp_path / "run", tmp_path)
    assert text_of(page).count("truth 3 boxes") == 2
    assert "student · backbone[0]" in page.text

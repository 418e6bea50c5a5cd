"""`tutelage predict` on images: files, folders, drawings. tests/deploy has the answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.conftest import Run
from tests.helpers.commands import TRAIN, network, part, write_image_folder, write_recipe
from tutelage.core import Overlay
from tutelage.drawing.overlay import draw_overlay


@pytest.fixture
def classifier(run: Run, here: Path) -> Path:
    """Return a run on an image folder."""
    write_image_folder(here / "photos", count=4)
    sections = {
        "data": part("data.ImageFolder", root="photos", size=8),
        "task": part("tasks.Classification", num_classes=3),
        "student": network(num_classes=3, channels=3, width=4),
        "num_labels": None,
        "train": {**TRAIN, "batch_size": 6},
    }
    assert run("train", write_recipe("mine.yaml", **sections), "--out", "run").code == 0
    return here / "run"


def test_files_and_folders_are_answered_in_words_and_json(
    classifier: Path, run: Run, refuse: Run
) -> None:
    Path("photos/test/class0/notes.txt").write_text("no image")
    answer = run("predict", "run", "photos/test", "--json")
    assert answer.code == 0
    assert answer.err == "left out: 1 files that are no images\n"
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert len(lines) == 12
    assert lines[0]["input"] == "photos/test/class0/0.jpg"
    assert len(lines[0]["classes"]) == 3
    text = run("predict", "run", "photos/test/class1/1.png", "--top", 1).out
    assert text.splitlines()[0] == "photos/test/class1/1.png"
    assert "class class" in text.splitlines()[1]
    assert len(text.splitlines()) == 2
    refuse("predict", "run", "photos/test/class1/1.png", "--top", 0, says=("(--top)",))
    refuse("predict", "run", "", says=("an input is empty",))
    refuse("predict", "hf://nobody", "a.png", says=("'hf://nobody' is no source of the Hub",))
    refuse("predict", "run", "~nobody-here/a.png", says=("home folder of '~nobody-here/a.png'",))
    refuse("predict", "run", "nowhere.png", says=("there is no input nowhere.png",))
    refuse("predict", "nowhere", "a.png", says=("nowhere is no run folder",))
    Path("broken.png").write_bytes(b"no png")
    refuse("predict", "run", "broken.png", says=("broken.png cannot be decoded",))
    Path("photos/test/class0/notes.txt").unlink()
    says = ("--draw takes a folder, and broken.png is a file",)
    refuse("predict", "run", "photos", "--draw", "broken.png", says=says)
    says = ("there is nothing to draw over",)
    refuse("predict", "run", "photos", "--draw", says=says)


def test_an_image_that_cannot_be_read_keeps_no_answer_from_the_others(
    classifier: Path, run: Run
) -> None:
    Path("photos/test/class0/0.jpg").write_bytes(b"no image")
    Path("photos/test/class1/2.jpg").write_bytes(b"")
    answer = run("predict", "run", "photos/test", "--json")
    assert answer.code == 2
    names = [json.loads(line)["input"] for line in answer.out.splitlines()]
    assert len(names) == 10
    assert names[0] == "photos/test/class0/1.png"
    *left_out, summary = answer.err.splitlines()
    assert [line.split()[:3] for line in left_out] == [
        ["left", "out:", "photos/test/class0/0.jpg"],
        ["left", "out:", "photos/test/class1/2.jpg"],
    ]
    said = "tutelage: 2 of 12 inputs have no answer; the others were answered"
    assert summary == said


def test_drawings_are_not_taken_for_inputs(run: Run, here: Path) -> None:
    from tests.helpers.masks import write_voc_masks

    write_voc_masks(here / "voc", {"train": 4, "val": 2})
    sections = {
        "data": part(
            "data.VOCSegmentation", root="voc", names=["background", "a", "b"], augment=False
        ),
        "task": part("tasks.Segmentation", num_classes=3),
        "student": network("models.unet", num_classes=3, width=4, convs=1),
        "num_labels": None,
        "train": {**TRAIN, "batch_size": 2},
    }
    sections["data"]["init_args"]["validation"] = 0.25
    assert run("train", write_recipe("mine.yaml", **sections), "--out", "run").code == 0
    images = sorted(here.glob("voc/VOC2012/JPEGImages/*val*.jpg"))
    for image in images:
        Image.open(image).save(image.with_suffix(".png"))
        image.unlink()
    folder = images[0].parent
    inputs = [path for path in folder.glob("*val*.png")]
    assert run("predict", "run", *inputs, "--draw").code == 0
    drawings = sorted(folder.glob("*-predicted.png"))
    assert len(drawings) == 2
    with Image.open(drawings[0]) as drawn, Image.open(images[0].with_suffix(".png")) as image:
        assert drawn.size == image.size
    again = run("predict", "run", *folder.glob("*val*.png"), "--draw", "--json")
    assert again.code == 0
    assert again.err == "left out: 2 drawings of its own\n"
    assert len(again.out.splitlines()) == 2
    assert sorted(folder.glob("*-predicted.png")) == drawings
    # An image that the user calls so is no drawing.
    image = images[0].with_suffix(".png")
    image.rename(folder / "mine-predicted.png")
    assert run("predict", "run", folder / "mine-predicted.png", "--draw", "out").code == 0
    assert Path("out/mine-predicted-predicted.png").is_file()


def test_boxes_are_drawn_where_they_are_found() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    corners = torch.tensor([[10.0, 5, 30, 25], [40, 20, 50, 30]])
    overlay = Overlay(corners, torch.tensor([1, 2]), torch.tensor([0.9, 0.1]))
    picture = draw_overlay(image, overlay, ["background", "tree"])
    assert picture.getpixel((10, 24)) == (0x4C, 0xE5, 0xE6)
    assert picture.getpixel((40, 25)) == (0, 0, 0)  # its score is too low

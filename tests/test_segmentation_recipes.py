"""The recipes for VOC and Cityscapes, put together from a few small images in the data sets' own layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.masks import write_cityscapes, write_voc_masks
from tutelage.cli import main

FOLDER = Path(__file__).parents[1] / "recipes/segmentation"
SMALLER = {"weights_backbone: IMAGENET1K_V1": "weights_backbone: null", "intra: 10.0}": "intra: 10.0, patch: auto}"}


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ("voc", "pcka", ["student classifier.3", "teacher classifier.3", "pcka.intra.classifier.3"]),
        ("cityscapes", "pcka", ["rcka.intra", "rcka.inter"]),
    ],
)
def test_a_recipe_can_be_planned(
    folder: str, name: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (FOLDER / folder).glob("*.yaml"):
        text = path.read_text()
        for old, new in SMALLER.items():
            text = text.replace(old, new)
        (tmp_path / path.name).write_text(text)
    write, crop = (write_voc_masks, "32") if folder == "voc" else (write_cityscapes, "[32, 64]")
    write(tmp_path / "data", {"train": 4, "val": 2})
    options = ["--data.root", str(tmp_path / "data"), "--data.crop", crop, "--data.validation", "0.5"]
    small = ["--train.batch_size", "2", "--train.workers", "0", "--train.threads", "1"]
    code = main(["plan", str(tmp_path / f"{name}.yaml"), *options, *small])
    told = capsys.readouterr()
    assert code == 0, told.err
    for line in expected:
        assert line in told.out

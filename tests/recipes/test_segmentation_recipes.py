"""The recipes for VOC and Cityscapes, put together from a few small images in their own layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.masks import write_cityscapes, write_voc_masks
from tutelage.cli import main
from tutelage.recipes import copy_recipe

SMALLER = {
    "weights_backbone: IMAGENET1K_V1": "weights_backbone: null",
    "intra_weight: 10.0}": "intra_weight: 10.0, patch_size: auto}",
}


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        (
            "voc",
            "pcka",
            ["student classifier.3", "teacher classifier.3", "pcka/intra/classifier.3"],
        ),
        ("cityscapes", "rcka_logits", ["rcka/intra", "rcka/inter"]),
    ],
)
def test_a_recipe_can_be_planned(
    folder: str, name: str, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe,) = copy_recipe(f"segmentation/{folder}/{name}", tmp_path / "recipes")
    for path in (tmp_path / "recipes").rglob("*.yaml"):
        text = path.read_text()
        for old, new in SMALLER.items():
            text = text.replace(old, new)
        path.write_text(text)
    write, crop = (write_voc_masks, "32") if folder == "voc" else (write_cityscapes, "[32, 64]")
    more = {"num_classes": 21} if folder == "voc" else {}
    write(tmp_path / "data", {"train": 4, "val": 2}, **more)
    options = [
        "--data.root",
        str(tmp_path / "data"),
        "--data.crop",
        crop,
        "--data.validation",
        "0.5",
    ]
    small = ["--train.batch_size", "2", "--train.num_workers", "0", "--train.num_threads", "1"]
    code = main(["plan", str(recipe), *options, *small])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    for line in expected:
        assert line in printed.out

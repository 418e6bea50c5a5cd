"""The papers' pairs on COCO, put together from two images in COCO's own layout, and smaller."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.helpers.coco import write_coco
from tutelage.cli import main
from tutelage.recipes import copy_recipe

SMALLER = {
    "weights: IMAGENET1K_V1": "weights: null",
    "num_classes: 91}}}": "num_classes: 91, sides: [128]}}}",
    "intra_weight: 10.0": "intra_weight: 10.0, patch_size: auto",
}
LEVELS = {
    "retinanet/pcka": ["256×16×24", "256×8×12", "256×4×6", "256×2×3"],
    "retinanet/pcka_x101": ["256×16×24", "256×8×12", "256×4×6", "256×2×3"],
    "fcos/pcka": ["256×16×24", "256×8×12", "256×4×6", "256×2×3"],
    "faster_rcnn/pcka": ["256×32×48", "256×16×24", "256×8×12", "256×4×6"],
    "retinanet/ssim": ["256×16×24", "256×8×12", "256×4×6", "256×2×3", "256×1×2"],
}
QUICK = ("faster_rcnn/pcka", "retinanet/ssim")  # the others build as large networks again


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in LEVELS],
)
def test_a_pair_can_be_planned(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recipe,) = copy_recipe(f"detection/coco/{name}", tmp_path / "recipes")
    for path in (tmp_path / "recipes").rglob("*.yaml"):
        text = path.read_text()
        for old, new in SMALLER.items():
            text = text.replace(old, new)
        path.write_text(text)
    write_coco(tmp_path / "coco")
    small = ["--data.root", str(tmp_path / "coco"), "--data.validation", "0.5"]
    small += ["--train.batch_size", "2", "--train.num_workers", "0"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*too small for a reflected border")
        code = main(["plan", str(recipe), *small])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    shapes = [
        line.split()[-1]
        for line in printed.out.splitlines()
        if line.startswith(("student b", "teacher b"))
    ]
    assert len(shapes) == 2 * len(LEVELS[name])
    for network in (shapes[: len(LEVELS[name])], shapes[len(LEVELS[name]) :]):
        for shape, expected in zip(network, LEVELS[name], strict=True):
            batch, _, rest = shape.partition("×")
            assert batch == "1"  # one image is for validation
            assert sorted(rest.split("×")) == sorted(expected.split("×"))

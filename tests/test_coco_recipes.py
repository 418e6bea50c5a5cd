"""The papers' pairs on COCO, put together from two images in COCO's own layout, smaller than the papers' images."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.coco import write_coco
from tutelage.cli import main

FOLDER = Path(__file__).parents[1] / "recipes/detection/coco"
SMALLER = {
    "weights: IMAGENET1K_V1": "weights: null",
    "num_classes: 91}}}": "num_classes: 91, sides: [128]}}}",
    "intra: 10.0": "intra: 10.0, patch: auto",
}
LEVELS = {
    "pcka_retinanet_r50": ["256×16×24", "256×8×12", "256×4×6", "256×2×3"],
    "pcka_retinanet_x101_r50": ["256×16×24", "256×8×12", "256×4×6", "256×2×3"],
    "pcka_fcos_r50": ["256×16×24", "256×8×12", "256×4×6", "256×2×3"],
    "pcka_faster_rcnn_r50": ["256×32×48", "256×16×24", "256×8×12", "256×4×6"],
    "ssim_retinanet_r50": ["256×16×24", "256×8×12", "256×4×6", "256×2×3", "256×1×2"],
}


@pytest.mark.parametrize("name", LEVELS)
def test_a_pair_can_be_planned(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in FOLDER.glob("*.yaml"):
        text = path.read_text()
        for old, new in SMALLER.items():
            text = text.replace(old, new)
        (tmp_path / path.name).write_text(text)
    write_coco(tmp_path / "coco")
    small = ["--data.root", str(tmp_path / "coco"), "--data.validation", "0.5"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*too small for a reflected border")
        recipe = str(tmp_path / f"{name}.yaml")
        code = main(["plan", recipe, *small, "--train.batch_size", "2", "--train.workers", "0"])
    told = capsys.readouterr()
    assert code == 0, told.err
    shapes = [line.split()[-1] for line in told.out.splitlines() if line.startswith(("student b", "teacher b"))]
    assert len(shapes) == 2 * len(LEVELS[name])
    for whose in (shapes[: len(LEVELS[name])], shapes[len(LEVELS[name]) :]):
        for shape, expected in zip(whose, LEVELS[name], strict=True):
            batch, _, rest = shape.partition("×")
            assert batch == "1"  # one image is for validation
            assert sorted(rest.split("×")) == sorted(expected.split("×"))

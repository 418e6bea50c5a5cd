"""What needs a package of an extra says how to install it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib

from tests.helpers.commands import network, write_recipe
from tests.helpers.packages import hide
from tutelage import UserError, load
from tutelage.data import HuggingFaceImages, ImageTable, InteractionFiles, TextPairs
from tutelage.deploy.formats import require
from tutelage.engine import TrainConfig
from tutelage.errors import EXTRAS
from tutelage.models import (
    CrossEncoder,
    SentenceEncoder,
    StaticEncoder,
    deconv_pose,
    fpn_backbone,
    vitpose,
)
from tutelage.recipes import parse_recipe
from tutelage.recipes.starter.look import look_at
from tutelage.report.heatmap import draw
from tutelage.tasks.detection.metrics import _import_evaluator
from tutelage.tasks.retrieval.bm25 import bm25_ranking

PARQUET = "table.parquet"

# What is used, the package that is missing, the extra that is named.
USES: list[tuple[str, str, Callable[[], Any]]] = [
    ("timm", "timm", lambda: fpn_backbone("mobilenetv3_small_050", weights=None)),
    ("timm", "timm", lambda: deconv_pose("mobilenetv3_small_050", num_joints=3)),
    ("transformers", "huggingface", lambda: vitpose(pretrained="nowhere")),
    ("transformers", "retrieval", lambda: CrossEncoder("nowhere")),
    ("sentence_transformers", "retrieval", lambda: SentenceEncoder("nowhere")),
    ("tokenizers", "retrieval", lambda: StaticEncoder("nowhere")),
    ("bm25s", "retrieval", lambda: bm25_ranking(["a wing"], ["wing"], 1)),
    ("faster_coco_eval", "detection", _import_evaluator),
    ("datasets", "datasets", lambda: HuggingFaceImages("nowhere").splits()),
    ("pyarrow", "retrieval", lambda: TextPairs(PARQUET).contents()),
    ("pyarrow", "recommendation", lambda: InteractionFiles(PARQUET).split()),
    ("pyarrow", "recommendation", lambda: ImageTable(PARQUET).splits()),
    ("pyarrow", "recommendation", lambda: look_at(".")),
    ("huggingface_hub", "hub", lambda: load("hf://owner/name")),
    ("matplotlib", "demo", lambda: draw(None, None, Path("maps.png"))),  # type: ignore[arg-type]
    ("onnxscript", "export", lambda: require("onnx", "onnxscript")),
    ("tensorboard", "tensorboard", lambda: TrainConfig(log_with=("tensorboard",))),
]


@pytest.mark.parametrize(("package", "extra", "use"), USES)
def test_a_missing_package_is_named_with_its_extra(
    package: str,
    extra: str,
    use: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(PARQUET).write_bytes(b"PAR1")
    hide(monkeypatch, package, *(["tensorboardX"] if package == "tensorboard" else []))
    with pytest.raises(UserError) as raised:
        use()
    message = str(raised.value)
    assert f"pip install 'tutelage[{extra}]'" in message
    assert package.replace("_", "-") in message.replace("_", "-")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("path", "package", "extra"),
    [
        ("timm.create_model", "timm", "timm"),
        ("timm.models.MlpMixer", "timm", "timm"),
        ("transformers.AutoModelForImageClassification", "transformers", "huggingface"),
    ],
)
def test_a_recipe_whose_network_needs_a_package_says_so(
    path: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path / "mine.yaml", student=network(path))
    hide(monkeypatch, package)
    says = f"needs {package}, which is not installed; pip install 'tutelage[{extra}]'"
    with pytest.raises(UserError, match=re.escape(says)):
        parse_recipe(recipe).build()


def test_every_extra_that_is_named_is_there() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        brought = {re.split(r"[>=\[<]", entry)[0].replace("-", "_") for entry in extras[extra]}
        # What a package of the extra brings along.
        brought |= {"tokenizers", "transformers"} if extra == "retrieval" else set()
        assert package in brought, f"{extra} does not bring {package}"

"""Labels of layers: short, and each that of one layer."""

from __future__ import annotations

import pytest
import torchvision

from tutelage.report.heatmap import plain
from tutelage.report.labels import short_labels

VIT = [name for name, _ in torchvision.models.vit_b_16().named_modules() if name]
HUGGING_FACE = [f"vit.encoder.layer.{i}.attention.attention.query" for i in range(12)]


@pytest.mark.parametrize(
    "names",
    [
        VIT,
        HUGGING_FACE,
        [*VIT, *HUGGING_FACE],
        ["layer1.0.conv1", "layer1.1.conv1"],
        ["x" * 39 + "y", "x" * 40],
        ["1" * 50 + str(i) + "2" * 50 for i in range(20)],
        ["x" * 9000 + f".{i}." + "y" * 9000 for i in range(9)],
        ["stem.a", "stem.a.b" * 12],
    ],
)
def test_every_label_names_one_layer(names: list[str]) -> None:
    labels = short_labels(names)
    assert len(set(labels)) == len(names)
    assert max(map(len, labels)) <= 64


def test_numbers_stay_and_what_all_share_goes() -> None:
    assert short_labels(HUGGING_FACE)[10] == "…10.attention.attention.query"
    assert short_labels(["layer1.0.conv1"]) == ["layer1.0.conv1"]
    assert len(set(map(plain, VIT))) == len(VIT)  # one by one, too
    assert short_labels([]) == []
